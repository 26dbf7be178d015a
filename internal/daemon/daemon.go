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
	reader := stats.NewReader(parts.node.Cgroups)
	runtime := cri.NewRuntime(cri.Parts{
		Node: parts.node, Book: parts.book, Sandboxes: parts.sandboxes, Containers: parts.containers, Sessions: parts.sessions,
		Debts: parts.debts, Stats: reader, Streams: streams, Network: parts.network, Images: parts.images, Version: version, Ending: ctx.Done(),
	})
	go reader.Run(background, runtime.Observed)
	server := cri.NewServer(runtime, &cri.Images{Store: parts.images, Node: parts.node, Book: parts.book, Stats: reader})
	pinfoldv1.RegisterNodeServiceServer(server, &admin.Server{
		Images: parts.images, Recovery: parts.recovery, Engine: parts.node.Engine,
	})
	go socket.keep(ctx, server)
	log.Info("serving", "socket", c.Socket, "version", version, "sandboxes", len(parts.book.Sandboxes()))
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
