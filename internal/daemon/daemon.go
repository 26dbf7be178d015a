// Package daemon puts pinfoldd together. It makes one of each part, recovers what an earlier run
// left, and serves CRI. At the end it closes all parts; the pods keep running.
package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"

	pinfoldv1 "github.com/pinfold-run/pinfold/api/pinfold/v1"
	"github.com/pinfold-run/pinfold/internal/admin"
	"github.com/pinfold-run/pinfold/internal/config"
	"github.com/pinfold-run/pinfold/internal/cri"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/stats"
	"github.com/pinfold-run/pinfold/internal/stream"
)

// graceToRequests is how long requests in progress may take to end when the daemon stops. The next
// start undoes or finishes what is cut off.
const graceToRequests = 10 * time.Second

// Run serves until ctx ends. All pods keep running. version is Pinfold's own.
func Run(ctx context.Context, c *config.Config, version string, log *slog.Logger) error {
	limitMemory()
	paths := pod.Paths{Root: c.Root, State: c.State, NetNS: c.NetNSDir, Pinder: c.Pinder}
	release, err := claim(c, paths, log)
	if err != nil {
		return err
	}
	defer release()
	if err := paths.Make(); err != nil {
		return err
	}
	shareNetNS(paths, log)
	parts, err := assemble(ctx, c, paths, version, log)
	if err != nil {
		return err
	}
	defer parts.close()
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	if err := parts.recover(background); err != nil {
		return err
	}
	streams, err := stream.Start(log, parts.sessions)
	if err != nil {
		return err
	}
	defer func() { _ = streams.Close() }()
	socket := &socket{path: c.Socket, log: log}
	listener, err := socket.listen()
	if err != nil {
		return err
	}
	defer socket.remove()
	reader := stats.NewReader(parts.node.cgroups)
	runtime := cri.NewRuntime(cri.Parts{
		Node: cri.Node{
			Host: parts.Host, Handlers: parts.node.handlers, Network: parts.node.network, Images: parts.node.images, Debts: parts.debts,
			UserNamespaces: parts.node.userNamespaces, Ready: parts.ready, Release: version,
		},
		Places: parts.Places, Book: parts.Book, Engine: parts.Engine, Events: parts.events,
		Sandboxes: parts.sandboxes, Containers: parts.containers, Sessions: parts.sessions,
		Stats: reader, Streams: streams, Ending: ctx.Done(),
	})
	go reader.Run(background, runtime.Observed)
	server := cri.NewServer(runtime, &cri.Images{
		Store: parts.node.images, Handlers: parts.node.handlers, Paths: paths, Book: parts.Book, Stats: reader,
	})
	pinfoldv1.RegisterNodeServiceServer(server, &admin.Server{
		Images: parts.node.images, Recovery: parts.recovery, Engine: parts.Engine,
	})
	go socket.keep(ctx, server)
	log.Info("serving", "socket", c.Socket, "version", version, "sandboxes", len(parts.Book.Sandboxes()))
	return serve(ctx, server, listener, log)
}

func serve(ctx context.Context, server *grpc.Server, listener net.Listener, log *slog.Logger) error {
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(&boundedListener{Listener: listener, log: log}) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	log.Info("the daemon ends; pods keep running")
	ended := make(chan struct{})
	go func() {
		server.GracefulStop()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(graceToRequests):
		server.Stop()
	}
	return nil
}
