package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path"
	"time"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/pinfold-run/pinfold/internal/pod"
)

const (
	// idleTimeout ends a connection on which nothing was said for so long; the kubelet's own default.
	idleTimeout = 4 * time.Hour
	// creationTimeout is how long a SPDY client may take to make the streams of its session.
	creationTimeout = 30 * time.Second
	// headerTimeout bounds the wait for a request on a new connection.
	headerTimeout = 10 * time.Second
)

// Server serves sessions. Its methods may be called from any goroutine.
type Server struct {
	containers *pod.Containers
	sandboxes  *pod.Sandboxes
	listener   *watchingListener
	http       *http.Server
	tokens     tokens
}

// Start serves on a port of its own on 127.0.0.1 until Close.
func Start(log *slog.Logger, containers *pod.Containers, sandboxes *pod.Sandboxes) (*Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("streaming server: %w", err)
	}
	// The library logs through klog, which is one for the process.
	klog.SetSlogLogger(slog.New(demoted{log.Handler()}))
	s := &Server{containers: containers, sandboxes: sandboxes, listener: &watchingListener{Listener: listener}}
	s.http = &http.Server{
		Handler: s, ReadHeaderTimeout: headerTimeout, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
	}
	go func() {
		if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("streaming server ended", "error", err)
		}
	}()
	return s, nil
}

// demoted logs everything at level debug: what the library calls errors are clients' mistakes and clients
// that go away.
type demoted struct{ slog.Handler }

// Enabled implements slog.Handler.
func (d demoted) Enabled(ctx context.Context, _ slog.Level) bool {
	return d.Handler.Enabled(ctx, slog.LevelDebug)
}

// Handle implements slog.Handler.
func (d demoted) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	return d.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (d demoted) WithAttrs(attrs []slog.Attr) slog.Handler {
	return demoted{d.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (d demoted) WithGroup(name string) slog.Handler { return demoted{d.Handler.WithGroup(name)} }

// Close ends the server and all sessions. What runs in containers goes on without its client.
func (s *Server) Close() error {
	err := s.http.Close()
	s.listener.closeAll()
	return err
}

// Exec returns the URL for running a command in a running container.
func (s *Server) Exec(r *runtimeapi.ExecRequest) (string, error) {
	if err := checkStreams("Exec", r.GetTty(), r.GetStdin(), r.GetStdout(), r.GetStderr()); err != nil {
		return "", err
	}
	if err := s.containers.CheckExec(r.GetContainerId(), r.GetCmd()); err != nil {
		return "", err
	}
	return s.announce(execSession{s, r})
}

// Attach returns the URL for attaching to a container's own streams.
func (s *Server) Attach(r *runtimeapi.AttachRequest) (string, error) {
	if err := checkStreams("Attach", r.GetTty(), r.GetStdin(), r.GetStdout(), r.GetStderr()); err != nil {
		return "", err
	}
	if err := s.containers.CheckAttach(r.GetContainerId()); err != nil {
		return "", err
	}
	return s.announce(attachSession{s, r})
}

// PortForward returns the URL for connections to ports of a pod.
func (s *Server) PortForward(r *runtimeapi.PortForwardRequest) (string, error) {
	for _, port := range r.GetPort() {
		if port < 1 || port > 65535 {
			return "", fmt.Errorf("PortForward: port %d is not between 1 and 65535: %w", port, errdefs.ErrInvalidArgument)
		}
	}
	if err := s.sandboxes.CheckPortForward(r.GetPodSandboxId()); err != nil {
		return "", err
	}
	return s.announce(forwardSession{s, r})
}

func checkStreams(rpc string, tty, stdin, stdout, stderr bool) error {
	switch {
	case tty && stderr:
		return fmt.Errorf("%s: tty and stderr exclude each other: a terminal has one output: %w", rpc, errdefs.ErrInvalidArgument)
	case !stdin && !stdout && !stderr:
		return fmt.Errorf("%s: none of stdin, stdout and stderr is asked for: %w", rpc, errdefs.ErrInvalidArgument)
	}
	return nil
}

// session is one announced request.
type session interface {
	// kind is the first element of the URL's path.
	kind() string
	// serve speaks with the client until the session has ended. The request's context ends with the connection.
	serve(w http.ResponseWriter, r *http.Request)
}

func (s *Server) announce(n session) (string, error) {
	token, err := s.tokens.add(n)
	if err != nil {
		return "", err
	}
	u := url.URL{Scheme: "http", Host: s.listener.Addr().String(), Path: "/" + n.kind() + "/" + token}
	return u.String(), nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	dir, token := path.Split(r.URL.Path)
	n := s.tokens.take(token)
	if n == nil || dir != "/"+n.kind()+"/" {
		http.Error(w, "this URL is unknown, was used before, or has expired", http.StatusNotFound)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	if c, ok := ctx.Value(connKey{}).(*watchedConn); ok {
		c.onEnd(cancel)
	}
	n.serve(w, r.WithContext(ctx))
}
