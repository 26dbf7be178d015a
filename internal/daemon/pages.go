package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/pinfold-run/pinfold/internal/admin"
	"github.com/pinfold-run/pinfold/internal/config"
)

const (
	// maxPages is how many connections the admin socket may have, and how many the address of
	// metrics.
	maxPages = 32
	// metricsRetry is how often the daemon tries to listen on the address of metrics if it is in use.
	metricsRetry = 15 * time.Second
)

// pages serves the operator's pages. They are there before the recovery begins: a start that hangs
// can be looked into.
type pages struct {
	*admin.Pages
	log    *slog.Logger
	closed []func()
}

// startPages serves on the admin socket and on the address of metrics, as far as they are
// configured. Neither keeps the daemon from its work: what fails is in the log.
func startPages(ctx context.Context, c *config.Config, h *health, log *slog.Logger) *pages {
	p := &pages{Pages: admin.NewPages(h.conditions, log), log: log}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	p.closed = append(p.closed, stop)
	if path := c.AdminSocket; path != "" {
		p.serveSocket(ctx, path)
	}
	if address := c.MetricsAddress; address != "" {
		p.serveMetrics(ctx, address)
	}
	return p
}

func (p *pages) serveSocket(ctx context.Context, path string) {
	s := &socket{path: path, mode: 0o600, most: maxPages, log: p.log}
	listener, err := s.listen()
	if err != nil {
		p.log.Error("the admin socket cannot be made", "socket", path, "error", err)
		return
	}
	server := p.Server()
	p.closed = append(p.closed, func() { _ = server.Close() }, s.remove)
	go func() { _ = server.Serve(listener) }()
	go s.keep(ctx, server.Serve)
}

func (p *pages) serveMetrics(ctx context.Context, address string) {
	server := p.MetricsServer()
	p.closed = append(p.closed, func() { _ = server.Close() })
	go func() {
		for said := false; ; said = true {
			err := p.listenForMetrics(ctx, server, address)
			if errors.Is(err, http.ErrServerClosed) || ctx.Err() != nil {
				return
			}
			if !said {
				p.log.Error("metrics are not served on their address; it is tried again", "address", address, "error", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(metricsRetry):
			}
		}
	}()
}

func (p *pages) listenForMetrics(ctx context.Context, server *http.Server, address string) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	p.log.Info("serving metrics", "address", listener.Addr().String())
	return server.Serve(&boundedListener{Listener: listener, most: maxPages, log: p.log})
}

// close ends all servers and removes the socket.
func (p *pages) close() {
	for _, end := range p.closed {
		end()
	}
}
