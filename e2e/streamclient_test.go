package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// session is a client's side of Exec or Attach, the same for both protocols.
type session struct {
	in        io.WriteCloser // Close ends only the input
	out, errs io.Reader
	resize    io.Writer
	// status is how it ended.
	status io.Reader
	// hangUp closes the connection.
	hangUp func()
}

// streamsOf says which streams a session has.
type streamsOf struct{ stdin, stdout, stderr, tty bool }

// dialers are the protocols, by name.
var dialers = map[string]func(t *testing.T, where string, s streamsOf) *session{"SPDY": dialSPDY, "WebSocket": dialWebSocket}

func connectSPDY(t *testing.T, where, protocol string) httpstream.Connection {
	t.Helper()
	tripper, err := spdy.NewRoundTripper(nil)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, where, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(httpstream.HeaderProtocolVersion, protocol)
	resp, err := tripper.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tripper.NewConnection(resp)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func dialSPDY(t *testing.T, where string, s streamsOf) *session {
	t.Helper()
	conn := connectSPDY(t, where, "v4.channel.k8s.io")
	stream := func(kind string) httpstream.Stream {
		h := http.Header{}
		h.Set("streamType", kind)
		stream, err := conn.CreateStream(h)
		if err != nil {
			t.Fatal(err)
		}
		return stream
	}
	made := &session{status: stream("error"), hangUp: func() { conn.Close() }}
	if s.stdin {
		made.in = stream("stdin")
	}
	if s.stdout {
		made.out = stream("stdout")
	}
	if s.stderr {
		made.errs = stream("stderr")
	}
	if s.tty {
		made.resize = stream("resize")
	}
	return made
}

func dialWS(t *testing.T, where, protocol string) *websocket.Conn {
	t.Helper()
	u, err := url.Parse(where)
	if err != nil {
		t.Fatal(err)
	}
	u.Scheme = "ws"
	config, err := websocket.NewConfig(u.String(), where)
	if err != nil {
		t.Fatal(err)
	}
	config.Protocol = []string{protocol}
	ws, err := websocket.DialConfig(config)
	if err != nil {
		t.Fatalf("%s over WebSocket: %v", protocol, err)
	}
	ws.PayloadType = websocket.BinaryFrame
	t.Cleanup(func() { ws.Close() })
	return ws
}

// channel is the direction to the server on one of the WebSocket's channels.
type channel struct {
	ws     *websocket.Conn
	number byte
}

func (c channel) Write(p []byte) (int, error) {
	if err := websocket.Message.Send(c.ws, append([]byte{c.number}, p...)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close sends version 5's signal that a channel ends.
func (c channel) Close() error { return websocket.Message.Send(c.ws, []byte{255, c.number}) }

func dialWebSocket(t *testing.T, where string, _ streamsOf) *session {
	t.Helper()
	ws := dialWS(t, where, "v5.channel.k8s.io")
	var readers [5]*io.PipeReader
	var writers [5]*io.PipeWriter
	for i := range readers {
		readers[i], writers[i] = io.Pipe()
	}
	go func() {
		for {
			var message []byte
			if err := websocket.Message.Receive(ws, &message); err != nil {
				for _, w := range writers {
					w.Close()
				}
				return
			}
			if len(message) > 1 {
				_, _ = writers[message[0]].Write(message[1:])
			}
		}
	}()
	return &session{
		in: channel{ws, 0}, out: readers[1], errs: readers[2], status: readers[3], resize: channel{ws, 4},
		hangUp: func() { ws.Close() },
	}
}

// result is all output of a session.
type result struct {
	out, errs string
	code      int
	// failure is the error, if there is no exit code.
	failure string
}

// reading makes the client read everything at once, as a terminal does. Both protocols have one
// connection for all streams, and an unread stream blocks the others.
func (s *session) reading() *session {
	for _, from := range []*io.Reader{&s.out, &s.errs} {
		if *from == nil {
			continue
		}
		b := &arrived{}
		b.more = sync.NewCond(&b.mu)
		go b.fill(*from)
		*from = b
	}
	return s
}

// arrived is what has been received and not yet read by the test.
type arrived struct {
	mu   sync.Mutex
	more *sync.Cond
	data []byte
	err  error
}

func (b *arrived) fill(from io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		b.mu.Lock()
		b.data, b.err = append(b.data, buf[:n]...), err
		b.more.Broadcast()
		b.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (b *arrived) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.data) == 0 && b.err == nil {
		b.more.Wait()
	}
	if len(b.data) == 0 {
		return 0, b.err
	}
	n := copy(p, b.data)
	b.data = b.data[n:]
	return n, nil
}

// finish reads everything to its end.
func (s *session) finish(t *testing.T) result {
	t.Helper()
	var r result
	var all sync.WaitGroup
	var status string
	for to, from := range map[*string]io.Reader{&r.out: s.out, &r.errs: s.errs, &status: s.status} {
		if from != nil {
			all.Go(func() {
				b, _ := io.ReadAll(from)
				*to = string(b)
			})
		}
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(slow(time.Minute)):
		s.hangUp()
		t.Fatal("the session does not end")
	}
	var err error
	if r.code, err = exitCode(status); err != nil {
		r.failure = err.Error()
	}
	return r
}

// exitCode reads Kubernetes' metav1.Status.
func exitCode(text string) (int, error) {
	var s struct {
		Status, Message, Reason string
		Details                 struct {
			Causes []struct{ Reason, Message string }
		}
	}
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return -1, fmt.Errorf("status %q: %w", text, err)
	}
	code := 0
	switch {
	case s.Status == "Success":
		return 0, nil
	case s.Reason == "NonZeroExitCode" && len(s.Details.Causes) == 1:
		_, err := fmt.Sscan(s.Details.Causes[0].Message, &code)
		return code, err
	}
	return -1, errors.New(s.Message)
}

// await reads from a stream until a text has come, and returns everything.
func await(t *testing.T, from io.Reader, want string) string {
	t.Helper()
	select {
	case got := <-coming(from, want):
		if !strings.Contains(got, want) {
			t.Fatalf("the end, while waiting for %q, came after %q", want, got)
		}
		return got
	case <-time.After(readyTimeout):
		t.Fatalf("%q did not come", want)
		return ""
	}
}

// coming reads until a text, or the end, and then gives all that came.
func coming(from io.Reader, want string) <-chan string {
	came := make(chan string, 1)
	go func() {
		var got strings.Builder
		buf := make([]byte, 4096)
		for !strings.Contains(got.String(), want) {
			n, err := from.Read(buf)
			got.Write(buf[:n])
			if err != nil {
				break
			}
		}
		came <- got.String()
	}()
	return came
}

func say(t *testing.T, to io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(to, text); err != nil {
		t.Fatalf("write %q: %v", text, err)
	}
}

// sayUntil repeats a line until the answer has come. The protocols do not say when a session starts
// to serve.
func sayUntil(t *testing.T, to io.Writer, line string, from io.Reader, want string) string {
	t.Helper()
	answer := coming(from, want)
	for limit := time.Now().Add(readyTimeout); time.Now().Before(limit); {
		say(t, to, line)
		select {
		case got := <-answer:
			return got
		case <-time.After(100 * time.Millisecond):
		}
	}
	t.Fatalf("no %q in answer to %q", want, line)
	return ""
}
