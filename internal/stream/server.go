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
	"sync"
	"time"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/fault"
	"github.com/pinfold-run/pinfold/internal/pod/session"
)

const (
	// idleTimeout is how long a connection may be idle; the kubelet's own default.
	idleTimeout = 4 * time.Hour
	// creationTimeout is how long a SPDY client may take to open the streams of its session.
	creationTimeout = 30 * time.Second
	// headerTimeout limits the wait for the rest of a request whose token was read.
	headerTimeout = 10 * time.Second
	// maxRequest limits a request's headers, in bytes. net/http adds 4 KiB to it.
	maxRequest = 32 << 10
	// endTimeout is how long a client may take to read how its session ended, closeTimeout the same when the daemon ends.
	endTimeout   = 10 * time.Second
	closeTimeout = 2 * time.Second
	// maxSessions is how many sessions may be open at once, maxObjectSessions how many of them with
	// one container or pod.
	maxSessions       = 500
	maxObjectSessions = 100
)

// Server serves sessions. Its methods may be called from any goroutine.
type Server struct {
	log      *slog.Logger
	sessions *session.Sessions
	listener *gate
	http     *http.Server
	tokens   tokens
	forwards count

	mu      sync.Mutex
	open    map[string]int // sessions, by object
	all     int
	closing bool
	// running are the sessions that are being served.
	running map[*running]struct{}
	// less gets a value after each end of a session, if there is room.
	less chan struct{}
	// counts are for Counts.
	counts map[Sort]*Count
}

// Start serves on a port of its own on 127.0.0.1, until Close.
func Start(log *slog.Logger, sessions *session.Sessions) (*Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("streaming server: %w", err)
	}
	s := &Server{
		log: log, sessions: sessions, open: map[string]int{}, counts: map[Sort]*Count{},
		running: map[*running]struct{}{}, less: make(chan struct{}, 1),
	}
	s.listener = newGate(listener, s.admit, s.left)
	s.http = &http.Server{
		Handler: s, ReadHeaderTimeout: headerTimeout, IdleTimeout: headerTimeout, MaxHeaderBytes: maxRequest,
		ErrorLog:    fault.ServerLog(log),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
	}
	go func() {
		if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("streaming server ended", "error", err)
		}
	}()
	return s, nil
}

// Exec returns the URL for running a command in a running container.
func (s *Server) Exec(r *runtimeapi.ExecRequest) (string, error) {
	if err := checkStreams("Exec", r.GetTty(), r.GetStdin(), r.GetStdout(), r.GetStderr()); err != nil {
		return "", err
	}
	if err := s.sessions.CheckExec(r.GetContainerId(), r.GetCmd()); err != nil {
		return "", err
	}
	return s.announce(execSession{s, r})
}

// Attach returns the URL for attaching to a container's own streams.
func (s *Server) Attach(r *runtimeapi.AttachRequest) (string, error) {
	if err := checkStreams("Attach", r.GetTty(), r.GetStdin(), r.GetStdout(), r.GetStderr()); err != nil {
		return "", err
	}
	if err := s.sessions.CheckAttach(r.GetContainerId()); err != nil {
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
	if err := s.sessions.CheckPortForward(r.GetPodSandboxId()); err != nil {
		return "", err
	}
	return s.announce(forwardSession{s, r})
}

func checkStreams(rpc string, tty, stdin, stdout, stderr bool) error {
	switch {
	case tty && stderr:
		return fmt.Errorf("%s: tty and stderr cannot be used together, because a terminal has one output: %w", rpc, errdefs.ErrInvalidArgument)
	case !stdin && !stdout && !stderr:
		return fmt.Errorf("%s: ask for stdin, stdout or stderr: %w", rpc, errdefs.ErrInvalidArgument)
	}
	return nil
}

// announcement is one announced request.
type announcement interface {
	// kind is the first element of the URL's path.
	kind() string
	// object is the container or pod that the session is with.
	object() string
	// size is the size of the request, in bytes.
	size() int
	// endsItself says that the session ends without the client's help, with its command.
	endsItself() bool
	// without says what becomes of the session's object when the session is cut off.
	without() string
	// serve serves the client until the session ends. The request's context ends with the
	// connection; its cause says why.
	serve(w http.ResponseWriter, r *http.Request)
}

func (s *Server) announce(n announcement) (string, error) {
	token, err := s.tokens.add(n)
	if err != nil {
		return "", err
	}
	u := url.URL{Scheme: "http", Host: s.listener.Addr().String(), Path: "/" + n.kind() + "/" + token}
	return u.String(), nil
}

var unknownURL = refusal{http.StatusNotFound, "this URL is unknown, was used before, or has expired"}

// admit takes the session that a request's path names, if the limits allow another session.
func (s *Server) admit(requested string) (announcement, refusal) {
	dir, token := path.Split(requested)
	n := s.tokens.take(token)
	if n == nil {
		return nil, unknownURL
	}
	if dir != "/"+n.kind()+"/" {
		s.tokens.done(n)
		return nil, unknownURL
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		s.tokens.done(n)
		return nil, refusal{http.StatusServiceUnavailable, restarting}
	}
	object := n.object()
	if s.all >= maxSessions || s.open[object] >= maxObjectSessions {
		s.tokens.done(n)
		s.log.Warn("a streaming session is refused: too many are open", "object", object, "sessions", s.all, "object_sessions", s.open[object])
		return nil, refusal{
			http.StatusServiceUnavailable,
			fmt.Sprintf("too many sessions are open: %d of %d, %d of %d with %s", s.all, maxSessions, s.open[object], maxObjectSessions, object),
		}
	}
	s.all++
	s.open[object]++
	return n, refusal{}
}

// left counts down the open sessions.
func (s *Server) left(n announcement) {
	s.tokens.done(n)
	object := n.object()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.open[object]--; s.open[object] == 0 {
		delete(s.open, object)
	}
}

// ServeHTTP implements http.Handler. A connection has one session and ends with it.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, ok := r.Context().Value(connKey{}).(*watchedConn)
	if !ok || c.session == nil {
		w.Header().Set("Connection", "close")
		http.Error(w, "this URL serves one request only", http.StatusNotFound)
		return
	}
	n := c.session
	c.session = nil
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer s.began(&running{session: n, end: cancel})()
	c.onEnd(func() { cancel(errGone) })
	c.setIdle(idleTimeout, func() { cancel(errIdle) })
	defer s.recovered(n, func(error) { _ = c.Close() })
	w.Header().Set("Connection", "close") // for answers that refuse the request
	defer s.counted(n.kind(), r)()
	n.serve(w, r.WithContext(ctx))
	c.setIdle(endTimeout, nil)
}
