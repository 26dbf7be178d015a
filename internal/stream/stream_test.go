package stream

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

var discard = slog.New(slog.DiscardHandler)

type waiting struct{ ended chan struct{} }

func (waiting) kind() string     { return "exec" }
func (waiting) object() string   { return "c" }
func (waiting) size() int        { return 1 }
func (waiting) endsItself() bool { return false }
func (waiting) without() string  { return "it goes on" }

// serve takes the connection over, as the protocols do, and waits for its end.
func (n waiting) serve(w http.ResponseWriter, r *http.Request) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
	<-r.Context().Done()
	close(n.ended)
	_ = conn.Close()
}

func TestASessionEndsWithItsConnection(t *testing.T) {
	for name, end := range map[string]func(*Server, net.Conn){
		"the client's": func(_ *Server, c net.Conn) { c.Close() },
		"the server's": func(s *Server, _ net.Conn) { _ = s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Start(discard, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			n := waiting{make(chan struct{})}
			token, err := s.tokens.add(n)
			if err != nil {
				t.Fatal(err)
			}
			conn, err := net.Dial("tcp", s.listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, "GET /exec/"+token+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(conn, make([]byte, 12)); err != nil {
				t.Fatal(err)
			}
			end(s, conn)
			select {
			case <-n.ended:
			case <-time.After(10 * time.Second):
				t.Error("the session goes on")
			}
		})
	}
}

func TestTokensAreTakenOnceAndBounded(t *testing.T) {
	var all tokens
	first, err := all.add(waiting{})
	if err != nil || len(first) != 64 {
		t.Fatalf("%q, %v", first, err)
	}
	if all.take(first) == nil || all.take(first) != nil || all.take("") != nil {
		t.Error("a token is not taken exactly once")
	}
	for range maxTokens {
		if _, err := all.add(waiting{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := all.add(waiting{}); !errors.Is(err, errdefs.ErrResourceExhausted) {
		t.Errorf("%v after %d", err, maxTokens)
	}
}

// The requests themselves have a common limit, until their sessions have ended.
func TestWaitingRequestsAreBoundedInMemory(t *testing.T) {
	var all tokens
	big := sized{bytes: maxRequests / 4}
	var last string
	for range 4 {
		token, err := all.add(big)
		if err != nil {
			t.Fatal(err)
		}
		last = token
	}
	if _, err := all.add(waiting{}); !errors.Is(err, errdefs.ErrResourceExhausted) {
		t.Errorf("one more: %v", err)
	}
	n := all.take(last)
	if _, err := all.add(big); err == nil {
		t.Error("a session's request does not count")
	}
	all.done(n)
	if _, err := all.add(big); err != nil {
		t.Errorf("after a session's end: %v", err)
	}
}

type sized struct {
	waiting
	bytes int
}

func (n sized) size() int { return n.bytes }

func TestStatusIsWhatKubernetesReads(t *testing.T) {
	for want, err := range map[string]error{
		`{"status":"Success"}`: nil,
		`{"status":"Failure","message":"command terminated with non-zero exit code: exit code 7","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}`: exitError(7),
		`{"status":"Failure","message":"no","reason":"InternalError","code":500}`:                                                                                                        errors.New("no"),
	} {
		var got strings.Builder
		tell(&got, true, err)
		if got.String() != want {
			t.Errorf("%v: %s, want %s", err, got.String(), want)
		}
	}
}
