package daemon

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
)

func TestTheSocketIsMadeForRootAndItsGroupAndReplacesADeadOne(t *testing.T) {
	s := &socket{path: filepath.Join(t.TempDir(), "s.sock"), mode: 0o660, most: 2, log: discard()}
	for range 2 { // the second time there is one of a daemon that has ended
		l, err := s.listen()
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(s.path)
		if err != nil || info.Mode() != os.ModeSocket|0o660 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
		l.Close()
		if _, err := os.Lstat(s.path); err != nil {
			t.Errorf("closing the listener removed the socket: %v", err)
		}
	}
}

func TestOnlyTheDaemonsOwnSocketIsRemoved(t *testing.T) {
	s := &socket{path: filepath.Join(t.TempDir(), "s.sock"), mode: 0o600, most: 2, log: discard()}
	l, err := s.listen()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Rename(s.path, s.path+".kept"); err != nil { // its inode stays in use
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.remove()
	if _, err := os.Lstat(s.path); err != nil {
		t.Errorf("what somebody else put there is gone: %v", err)
	}
	if err := os.Rename(s.path+".kept", s.path); err != nil {
		t.Fatal(err)
	}
	s.remove()
	if _, err := os.Lstat(s.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its own is still there: %v", err)
	}
}

func TestASocketThatIsRemovedIsMadeAgain(t *testing.T) {
	s := &socket{path: filepath.Join(t.TempDir(), "dir", "s.sock"), mode: 0o600, most: 2, log: discard()}
	if err := os.Mkdir(filepath.Dir(s.path), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := s.listen()
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	defer server.Stop()
	go func() { _ = server.Serve(l) }()
	// Its directory with it, as a cleaner of /run does.
	if err := os.RemoveAll(filepath.Dir(s.path)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go s.keep(ctx, server.Serve)
	for deadline := time.Now().Add(4 * socketLook); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("unix", s.path)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

type silent struct {
	net.Conn
	closed *int
}

func (s silent) Close() error { *s.closed++; return nil }

func TestTheConnectionBeyondTheLastIsClosed(t *testing.T) {
	refused, accepted := 0, 0
	l := &boundedListener{most: maxConnections, log: discard()}
	l.Listener = listenerOf(func() (net.Conn, error) {
		if accepted++; accepted > maxConnections+3 {
			return nil, net.ErrClosed
		}
		return silent{closed: &refused}, nil
	})
	var open []net.Conn
	for {
		conn, err := l.Accept()
		if err != nil {
			break
		}
		open = append(open, conn)
	}
	if len(open) != maxConnections || refused != 3 {
		t.Errorf("%d are open, %d were closed", len(open), refused)
	}
	// One that ends makes room, and only once.
	_, _ = open[0].Close(), open[0].Close()
	accepted = maxConnections
	for {
		conn, err := l.Accept()
		if err != nil {
			break
		}
		open = append(open, conn)
	}
	if len(open) != maxConnections+1 {
		t.Errorf("after one has ended, %d more were accepted", len(open)-maxConnections)
	}
}

// listenerOf is a listener whose Accept is a function.
type listenerOf func() (net.Conn, error)

func (f listenerOf) Accept() (net.Conn, error) { return f() }
func (listenerOf) Close() error                { return nil }
func (listenerOf) Addr() net.Addr              { return nil }
