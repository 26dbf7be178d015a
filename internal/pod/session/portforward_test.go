package session

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pod"
)

// sessionsWith are the sessions of a node with one pod, on the node's network, and one container in it.
func sessionsWith(t *testing.T, box, container pod.State) *Sessions {
	t.Helper()
	book := pod.NewBook()
	book.AddSandbox(pod.NewSandbox(&pod.SandboxRecord{
		ID: "s", State: box, Reason: "its PID 1 has ended",
		Config: ocispec.ParsePod(&runtimeapi.PodSandboxConfig{Linux: &runtimeapi.LinuxPodSandboxConfig{
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE}},
		}}),
	}))
	book.AddContainer(pod.NewContainer(&pod.ContainerRecord{ID: "c", Sandbox: "s", State: container}))
	return New(Config{
		Book: book, Places: &pod.Places{Paths: pod.Paths{State: t.TempDir()}}, Log: slog.New(slog.DiscardHandler),
		Current: func(s *pod.Sandbox) *pod.SandboxRecord { return s.Record() },
	})
}

// listening is a program in the pod that serves one connection.
func listening(t *testing.T, serve func(*net.TCPConn)) int32 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		conn, err := l.Accept()
		if err == nil {
			serve(conn.(*net.TCPConn))
		}
	}()
	return int32(l.Addr().(*net.TCPAddr).Port)
}

// forwarding is a client's end in memory, and what became of it.
type forwarding struct {
	Forwarded
	closed, reset bool
}

func clientOf(in io.Reader, out io.Writer) *forwarding {
	f := &forwarding{}
	f.Forwarded = Forwarded{
		ReadWriter: struct {
			io.Reader
			io.Writer
		}{in, out},
		CloseWrite: func() error { f.closed = true; return nil },
		Reset:      func() error { f.reset = true; return nil },
	}
	return f
}

func TestAForwardedConnectionHasTwoHalves(t *testing.T) {
	s := sessionsWith(t, pod.Ready, pod.Running)
	port := listening(t, func(conn *net.TCPConn) {
		// It answers only when all is there: the client's end of its half has to come through.
		all, _ := io.ReadAll(conn)
		_, _ = conn.Write([]byte("got " + string(all)))
		conn.Close()
	})
	var answer strings.Builder
	client := clientOf(strings.NewReader("request"), &answer)
	if err := s.PortForward(t.Context(), "s", port, client.Forwarded); err != nil || answer.String() != "got request" {
		t.Errorf("%q, %v", answer.String(), err)
	}
	if !client.closed || client.reset {
		t.Errorf("the end of the pod's half: told %t, reset %t", client.closed, client.reset)
	}
}

func TestAResetOfTheApplicationIsPassedOn(t *testing.T) {
	s := sessionsWith(t, pod.Ready, pod.Running)
	port := listening(t, func(conn *net.TCPConn) {
		_, _ = conn.Read(make([]byte, 1))
		_ = conn.SetLinger(0) // the close is a reset
		conn.Close()
	})
	in, hold := io.Pipe()
	defer hold.Close()
	go func() { _, _ = hold.Write([]byte("x")) }()
	client := clientOf(in, io.Discard)
	if err := s.PortForward(t.Context(), "s", port, client.Forwarded); err != nil || !client.reset {
		t.Errorf("reset %t, %v: it is no failure of the session", client.reset, err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestAConnectionEndsWithItsClientAndWithItsSession(t *testing.T) {
	s := sessionsWith(t, pod.Ready, pod.Running)
	ended := make(chan struct{})
	port := listening(t, func(conn *net.TCPConn) {
		defer close(ended)
		_, _ = conn.Write([]byte("x"))
		_, _ = io.Copy(io.Discard, conn)
	})
	in, hold := io.Pipe()
	defer hold.Close()
	if err := s.PortForward(t.Context(), "s", port, clientOf(in, failing{syscall.EPIPE}).Forwarded); err != nil {
		t.Errorf("it takes no data: %v", err)
	}
	awaited(t, ended, "the application's connection is still open")

	silent := make(chan struct{})
	port = listening(t, func(conn *net.TCPConn) {
		defer close(silent)
		_, _ = io.Copy(io.Discard, conn)
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	cut := errors.New("the session is cut off")
	time.AfterFunc(50*time.Millisecond, func() { cancel(cut) })
	if err := s.PortForward(ctx, "s", port, clientOf(in, io.Discard).Forwarded); !errors.Is(err, cut) {
		t.Errorf("its session has ended: %v", err)
	}
	awaited(t, silent, "the application's connection is still open")
}

func awaited(t *testing.T, done <-chan struct{}, otherwise string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error(otherwise)
	}
}

func TestAPortOnWhichNothingListensIsAnError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := int32(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	err = sessionsWith(t, pod.Ready, pod.Running).PortForward(t.Context(), "s", port, clientOf(strings.NewReader(""), io.Discard).Forwarded)
	if !errors.Is(err, syscall.ECONNREFUSED) || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("got %v", err)
	}
}

func TestOnlyAReadyPodIsConnectedTo(t *testing.T) {
	for state, refused := range map[pod.State]bool{pod.Creating: true, pod.Ready: false, pod.Stopped: true, pod.Removing: true} {
		err := sessionsWith(t, state, pod.Exited).CheckPortForward("s")
		if errdefs.IsFailedPrecondition(err) != refused || refused && !strings.Contains(err.Error(), "its PID 1 has ended") {
			t.Errorf("%s: %v", state, err)
		}
	}
	if err := sessionsWith(t, pod.Ready, pod.Running).CheckPortForward("nosuch"); !errdefs.IsNotFound(err) {
		t.Errorf("one that does not exist: %v", err)
	}
}

func TestACommandRunsInARunningContainerOnly(t *testing.T) {
	bundle := `{"ociVersion": "1.1.0", "process": {"cwd": "/", "args": ["sh"], "env": ["A=b"]}}`
	for state, refused := range map[pod.State]bool{pod.Created: true, pod.Running: false, pod.Exited: true, pod.Removing: true} {
		s := sessionsWith(t, pod.Ready, state)
		if err := errors.Join(os.MkdirAll(s.Places.Bundle("c"), 0o700), os.WriteFile(s.Places.BundleConfig("c"), []byte(bundle), 0o600)); err != nil {
			t.Fatal(err)
		}
		if err := s.CheckExec("c", []string{"true"}); errdefs.IsFailedPrecondition(err) != refused || !refused && err != nil {
			t.Errorf("%s: %v", state, err)
		}
		if err := s.CheckExec("c", nil); !refused && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: a command of no words: %v", state, err)
		}
		if err := s.CheckExec("nosuch", []string{"true"}); !errdefs.IsNotFound(err) {
			t.Errorf("a container that does not exist: %v", err)
		}
	}
}

func TestTheInputOfAClientIsCountedWhileItIsRead(t *testing.T) {
	sent := make(chan struct{})
	r := countingReader{strings.NewReader("12345"), new(atomic.Int64)}
	if _, err := io.Copy(io.Discard, r); err != nil || r.count.Load() != 5 {
		t.Errorf("%d, %v", r.count.Load(), err)
	}
	// A client that sends nothing is not waited for beyond the limit; one that has ended not at all.
	close(sent)
	began := time.Now()
	linger(sent, r.count)
	if took := time.Since(began); took > lingerTimeout {
		t.Errorf("an ended client was waited for: %s", took)
	}
	began = time.Now()
	linger(make(chan struct{}), r.count)
	if took := time.Since(began); took < lingerTimeout || took > 5*lingerTimeout {
		t.Errorf("a silent client was waited for %s", took)
	}
}

func TestAClientThatSendsNothingIsNotWaitedForLong(t *testing.T) {
	t.Parallel()
	in, hold := io.Pipe()
	defer hold.Close()
	for _, c := range []struct {
		canBeTold bool // that the pod has ended its half
		atLeast   time.Duration
		atMost    time.Duration
	}{{true, lingerTimeout, 10 * lingerTimeout}, {false, 0, lingerTimeout}} {
		s := sessionsWith(t, pod.Ready, pod.Running)
		port := listening(t, func(conn *net.TCPConn) { conn.Close() })
		client := clientOf(in, io.Discard)
		if !c.canBeTold {
			client.CloseWrite = nil
		}
		begin := time.Now()
		err := s.PortForward(t.Context(), "s", port, client.Forwarded)
		if took := time.Since(begin); err != nil || took < c.atLeast || took > c.atMost {
			t.Errorf("a client that can be told: %t: after %s: %v", c.canBeTold, took, err)
		}
	}
}
