package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	pinfoldv1 "github.com/pinfold-run/pinfold/api/pinfold/v1"
)

// node is a connection to the daemon.
type node struct {
	conn    *grpc.ClientConn
	runtime runtimeapi.RuntimeServiceClient
	images  runtimeapi.ImageServiceClient
	own     pinfoldv1.NodeServiceClient
	// version is what the daemon says of itself.
	version *runtimeapi.VersionResponse
	// logs lists the log directories that pinfold run made.
	logs logBook
}

// connect returns a client of the daemon, which has answered. The caller closes it.
func (t *tool) connect(ctx context.Context) (*node, error) {
	e, err := systemPlaces().find(t.socket)
	if err != nil {
		return nil, err
	}
	return t.connectTo(ctx, e)
}

// connectTo is connect, to a socket that is known.
func (t *tool) connectTo(ctx context.Context, e endpoint) (*node, error) {
	if t.timeout < 0 {
		return nil, misuse("--timeout %s is negative", t.timeout)
	}
	first, err := t.dial(ctx, e)
	if err != nil {
		return nil, err
	}
	n, err := newNode(e, first, limits{e, t.timeout}.intercept)
	if err != nil {
		_ = first.Close()
		return nil, fmt.Errorf("%s: %w", e, err)
	}
	if n.version, err = n.runtime.Version(ctx, &runtimeapi.VersionRequest{}); err == nil && n.version.GetRuntimeName() == "pinfold" {
		return n, nil
	}
	n.close()
	return nil, e.explainAnswer(n.version, err)
}

// newNode makes a client that uses a connection that is open, and dials again if it ends.
func newNode(e endpoint, first net.Conn, limit grpc.UnaryClientInterceptor) (*node, error) {
	var used atomic.Bool
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		if !used.Swap(true) {
			return first, nil
		}
		return (&net.Dialer{}).DialContext(ctx, "unix", e.path)
	}
	conn, err := grpc.NewClient("passthrough:///pinfold", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(dial), grpc.WithUnaryInterceptor(limit), grpc.WithAuthority("localhost"),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: retryDelay, Multiplier: 1, MaxDelay: retryDelay}, MinConnectTimeout: startTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return nil, err
	}
	return &node{
		conn: conn, runtime: runtimeapi.NewRuntimeServiceClient(conn), images: runtimeapi.NewImageServiceClient(conn),
		own:  pinfoldv1.NewNodeServiceClient(conn),
		logs: logBook{dir: e.path + ".logs"},
	}, nil
}

// retryDelay is the time between two attempts to reach a daemon that is started again.
const retryDelay = 200 * time.Millisecond

// patiently calls do again while the daemon does not answer because it is started again.
func (n *node) patiently(ctx context.Context, do func() error) error {
	var since time.Time
	for {
		err := do()
		if !isGone(err) {
			return err
		}
		if since.IsZero() {
			since = time.Now()
		}
		if time.Since(since) > startTimeout {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(retryDelay):
		}
	}
}

// startTimeout limits how long a command waits for a daemon that is started again.
const startTimeout = 30 * time.Second

// maxAnswer is the largest answer of the daemon, in bytes, as for the kubelet.
const maxAnswer = 16 << 20

func (n *node) close() { _ = n.conn.Close() }

// dial opens the first connection. Its errors say what to do.
func (t *tool) dial(ctx context.Context, e endpoint) (net.Conn, error) {
	if t.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.timeout)
		defer cancel()
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", e.path)
	if err == nil {
		return conn, nil
	}
	return nil, e.explainDial(err)
}

const startIt = "start the daemon (systemctl start pinfold)"

// explainDial says why no daemon answers, and what to do.
func (e endpoint) explainDial(err error) error {
	info, statErr := os.Stat(e.path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("you may not use the socket %s: only root may; use sudo", e)
	case errors.Is(err, fs.ErrNotExist) && e.from == "":
		return fmt.Errorf("the daemon is not running: there is no socket %s; %s, or name its socket with --socket", e, startIt)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no socket %s; %s, or name its socket with --socket", e, startIt)
	case statErr == nil && info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is not a socket; name the daemon's with --socket", e)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("the daemon is not running: no process listens on the socket %s; %s; journalctl -u pinfold says why it ended", e, startIt)
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return e.explainSilence()
	}
	return fmt.Errorf("connect to the socket %s: %w", e, err)
}

// explainSilence is the error if the daemon takes connections and does not answer.
func (e endpoint) explainSilence() error {
	return fmt.Errorf("the daemon at the socket %s does not answer; journalctl -u pinfold may say why, --timeout waits longer", e)
}

// explainAnswer is the error if what answers is not Pinfold.
func (e endpoint) explainAnswer(v *runtimeapi.VersionResponse, err error) error {
	advice := "name Pinfold's socket with --socket"
	if e.missing != "" {
		advice = fmt.Sprintf("Pinfold's daemon is not running, there is no socket %s: %s", e.missing, startIt)
	}
	if err == nil {
		return fmt.Errorf("at the socket %s answers %s %s, not Pinfold; %s", e, v.GetRuntimeName(), v.GetRuntimeVersion(), advice)
	}
	switch status.Code(err) {
	case codes.Canceled:
		return err
	case codes.DeadlineExceeded:
		return e.explainSilence()
	case codes.Unimplemented, codes.Unavailable, codes.Internal, codes.Unknown:
		return fmt.Errorf("what listens on the socket %s does not speak CRI, so it is not Pinfold; %s (%s)", e, advice, status.Convert(err).Message())
	}
	return err
}

// limits gives every question to the daemon a time limit. Operations have none.
type limits struct {
	endpoint endpoint
	timeout  time.Duration
}

// intercept is a grpc.UnaryClientInterceptor.
//
// wide: gRPC's type
func (l limits) intercept(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	if l.timeout == 0 || !isQuestion(path.Base(method)) {
		return invoke(ctx, method, req, reply, conn, options...)
	}
	limited, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	err := invoke(limited, method, req, reply, conn, options...)
	if status.Code(err) == codes.DeadlineExceeded && ctx.Err() == nil {
		return errSilent{l.endpoint, err}
	}
	return err
}

// errSilent is a question that was not answered in time.
type errSilent struct {
	endpoint endpoint
	err      error
}

// Error implements error.
func (s errSilent) Error() string { return s.endpoint.explainSilence().Error() }

// Unwrap returns gRPC's error.
func (s errSilent) Unwrap() error { return s.err }

// isQuestion tells the calls that only read what the daemon has in memory.
func isQuestion(call string) bool {
	return call == "Version" || strings.HasPrefix(call, "List") || strings.HasSuffix(call, "Status")
}
