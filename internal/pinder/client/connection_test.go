package client

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

func TestARequestWhoseCallerIsGoneIsNotSent(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[1]) //nolint:errcheck // of the test
	conn, err := wire.NewConn(pair[0])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // of the test
	s := &connection{conn: conn, pending: map[uint64]chan wire.Message{}, lost: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if m, err := s.ask(ctx, wire.TypeAttach, wire.Attach{ID: "c"}, nil); !errors.Is(err, context.Canceled) || len(m.FDs) > 0 {
		t.Errorf("%v, %v", m, err)
	}
	if n, _, err := unix.Recvfrom(pair[1], make([]byte, 100), unix.MSG_DONTWAIT); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("%d bytes were sent (%v): the answer's descriptors would have no owner", n, err)
	}
	if len(s.pending) > 0 {
		t.Errorf("an answer is waited for: %v", s.pending)
	}
}
