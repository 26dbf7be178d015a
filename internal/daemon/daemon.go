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
	"google.golang.org/grpc/health/grpc_health_v1"

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

// Run serves until ctx ends. All pods keep running.
//
// long: the order of a start, with what ends each part beside it.
func Run(ctx context.Context, c *config.Config, process Process) error {
	limitMemory()
	log, version := process.Log, process.Version
	configured := c
	c = withFreeNRISocket(c, config.NodeNRISocket, log)
	process.starts("looking for what an earlier run left")
	paths := pod.Paths{Root: c.Root, State: c.State, NetNS: c.NetNSDir, Pinder: c.Pinder}
	release, err := claim(c, paths, log)
	if err != nil {
		return err
	}
	defer release()
	process.logStart(c)
	began := time.Now()
	if err := paths.Make(); err != nil {
		return err
	}
	shareNetNS(paths, log)
	health := newHealth()
	pages := startPages(ctx, c, health, log)
	defer pages.close()
	observers := observe(ctx, version, log)
	defer observers.close()
	pages.HandleMetrics(observers.handler())
	parts, err := assemble(ctx, c, paths, observers, log)
	if err != nil {
		return err
	}
	defer parts.close()
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	process.starts("recovering pods")
	if err := parts.recover(background); err != nil {
		return err
	}
	streams, closeStreams, err := startStreams(ctx, parts.sessions, log)
	if err != nil {
		return err
	}
	defer closeStreams()
	socket := &socket{path: c.Socket, mode: 0o660, most: maxConnections, log: log}
	listener, err := socket.listen()
	if err != nil {
		return err
	}
	defer socket.remove()
	server := parts.newServer(background, streams, version, ctx.Done())
	defer serveContainerd(background, parts, c.ContainerdSocket, version)()
	grpc_health_v1.RegisterHealthServer(server, health)
	observers.serving(parts, streams, server)
	health.serving(background, parts.checks()...)
	go socket.keep(ctx, server.Serve)
	log.Info("serving", "socket", c.Socket, "took", time.Since(began).Round(time.Millisecond))
	go parts.logRuntimes(background)
	context.AfterFunc(ctx, func() {
		process.tell(process.Manager.Stopping("Stopping; pods keep running"))
		health.ending()
	})
	go parts.attend(ctx, configured, process)
	return serve(ctx, server, listener, log)
}

// newServer returns the server of the CRI socket. Streams without an end of their own end with
// ending.
func (p *parts) newServer(background context.Context, streams *stream.Server, version string, ending <-chan struct{}) *grpc.Server {
	reader := stats.NewReader(p.node.cgroups)
	p.usage = reader
	runtime := cri.NewRuntime(cri.Parts{
		Node: cri.Node{
			Host: p.Host, Handlers: p.node.handlers, Network: p.node.network, Images: p.node.images, Debts: p.debts,
			UserNamespaces: p.node.userNamespaces, Ready: p.ready, Release: version,
		},
		Places: p.Places, Book: p.Book, Engine: p.Engine, Events: p.events,
		Sandboxes: p.sandboxes, Containers: p.containers, Sessions: p.sessions,
		Stats: reader, Streams: streams, Ending: ending,
	})
	go reader.Run(background, runtime.Observed)
	server := cri.NewServer(runtime, &cri.Images{
		Store: p.node.images, Handlers: p.node.handlers, Paths: p.Places.Paths, Book: p.Book, Stats: reader,
	}, p.Log, p.observers.server()...)
	pinfoldv1.RegisterNodeServiceServer(server, &admin.Server{
		Images: p.node.images, Recovery: p.recovery, Engine: p.Engine,
	})
	return server
}

func serve(ctx context.Context, server *grpc.Server, listener net.Listener, log *slog.Logger) error {
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
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
