package stream

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	framing "github.com/moby/spdystream/spdy"
	"golang.org/x/net/websocket"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/pinfold-run/pinfold/internal/pod/session"
)

// fakeCommand is a session whose command is a function.
type fakeCommand struct {
	options
	name string
	do   func(ctx context.Context, s session.Streams) error
}

func (fakeCommand) kind() string                                       { return "exec" }
func (fakeCommand) size() int                                          { return 1 }
func (n fakeCommand) endsItself() bool                                 { return !n.tty }
func (fakeCommand) without() string                                    { return "the command goes on" }
func (n fakeCommand) object() string                                   { return n.name }
func (n fakeCommand) wants() options                                   { return n.options }
func (n fakeCommand) run(ctx context.Context, s session.Streams) error { return n.do(ctx, s) }
func (n fakeCommand) serve(w http.ResponseWriter, r *http.Request)     { serveCommand(w, r, n) }
func echo(_ context.Context, s session.Streams) error                  { _, err := io.Copy(s.Out, s.In); return err }
func untilGone(ctx context.Context, _ session.Streams) error           { <-ctx.Done(); return nil }
func started(t *testing.T) *Server {
	t.Helper()
	s, err := Start(discard, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// announced returns the URL of a session.
func (s *Server) announced(t *testing.T, n announcement) string {
	t.Helper()
	where, err := s.announce(n)
	if err != nil {
		t.Fatal(err)
	}
	return where
}

// client is the client's end of a command's session.
type client struct {
	in, resize   io.Writer
	out, outcome io.Reader
	close        func()
}

var protocols = map[string]func(*testing.T, string) *client{"SPDY": dialSPDY, "WebSocket": dialWebSocket}

func connectSPDY(t *testing.T, where string) httpstream.Connection {
	t.Helper()
	tripper, err := spdy.NewRoundTripper(nil)
	if err != nil {
		t.Fatal(err)
	}
	req, _ := http.NewRequest(http.MethodPost, where, nil)
	req.Header.Set(protocolHeader, "v4.channel.k8s.io")
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

func dialSPDY(t *testing.T, where string) *client {
	t.Helper()
	conn := connectSPDY(t, where)
	made := map[string]httpstream.Stream{}
	for _, kind := range []string{"error", "stdin", "stdout", "resize"} {
		s, err := conn.CreateStream(http.Header{"streamType": {kind}})
		if err != nil {
			t.Fatal(err)
		}
		made[kind] = s
	}
	return &client{made["stdin"], made["resize"], made["stdout"], made["error"], func() { conn.Close() }}
}

type toChannel struct {
	ws     *websocket.Conn
	number byte
}

func (c toChannel) Write(p []byte) (int, error) {
	return len(p), websocket.Message.Send(c.ws, append([]byte{c.number}, p...))
}

func dialWS(t *testing.T, where, protocol string) *websocket.Conn {
	t.Helper()
	u, _ := url.Parse(where)
	u.Scheme = "ws"
	config, err := websocket.NewConfig(u.String(), where)
	if err != nil {
		t.Fatal(err)
	}
	config.Protocol = []string{protocol}
	ws, err := websocket.DialConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.Close() })
	return ws
}

func dialWebSocket(t *testing.T, where string) *client {
	t.Helper()
	ws := dialWS(t, where, "v5.channel.k8s.io")
	out, outW := io.Pipe()
	outcome, outcomeW := io.Pipe()
	go func() {
		for {
			var message []byte
			if err := websocket.Message.Receive(ws, &message); err != nil {
				outW.Close()
				outcomeW.Close()
				return
			}
			switch {
			case len(message) < 2:
			case message[0] == channelOut:
				_, _ = outW.Write(message[1:])
			case message[0] == channelStatus:
				_, _ = outcomeW.Write(message[1:])
			}
		}
	}()
	return &client{toChannel{ws, channelIn}, toChannel{ws, channelResize}, out, outcome, func() { ws.Close() }}
}

var everything = options{stdin: true, stdout: true, tty: true}

// works fails the test if a session is not served now.
func works(t *testing.T, s *Server) {
	t.Helper()
	for name, dial := range protocols {
		c := dial(t, s.announced(t, fakeCommand{everything, "works", echo}))
		if _, err := io.WriteString(c.in, "hello\n"); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := make([]byte, 6)
		if _, err := io.ReadFull(c.out, got); err != nil || string(got) != "hello\n" {
			t.Errorf("%s: a session that has a right to it gets %q, %v", name, got, err)
		}
		c.close()
	}
}

// heap is how much memory is in use, in MiB.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return (m.HeapInuse + m.StackInuse) >> 20
}

// within polls for a condition.
func within(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not within 30 s: ", what)
		}
	}
}

// There are more pending connections than allowed, and each sends as much as it can of a request
// without an end. A client with a token is served all the same, and their requests are not kept.
func TestConnectionsWithoutATokenCostNothingAndShutOutNoClient(t *testing.T) {
	for name, request := range map[string]string{
		"a header without end":  "GET /exec/0123 HTTP/1.1\r\nX: ",
		"a target without end":  "GET /",
		"a method without end":  "G",
		"nothing":               "",
		"a second unknown path": "GET http://127.0.0.1/ HTTP/1.1\r\nHost: x\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := started(t)
			before := heap()
			rubbish := bytes.Repeat([]byte("x"), 1<<20)
			var senders sync.WaitGroup
			for range 2 * maxPending {
				conn, err := net.Dial("tcp", s.listener.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if request == "" {
					continue
				}
				senders.Go(func() {
					_ = conn.SetWriteDeadline(time.Now().Add(20 * time.Second))
					_, _ = io.WriteString(conn, request)
					_, _ = conn.Write(rubbish)
				})
			}
			works(t, s)
			within(t, "the number of pending connections is limited", func() bool {
				s.listener.mu.Lock()
				defer s.listener.mu.Unlock()
				return len(s.listener.pending) <= maxPending
			})
			if now := heap(); now > before+32 {
				t.Errorf("the heap has grown from %d to %d MiB", before, now)
			}
			s.Close()
			senders.Wait()
		})
	}
}

// A connection serves one request. It is not kept open for another, and a refused one is closed.
func TestNoConnectionOutlivesItsRequest(t *testing.T) {
	s := started(t)
	for name, path := range map[string]string{
		"unknown": "/exec/0", "no upgrade": strings.TrimPrefix(s.announced(t, fakeCommand{everything, "c", echo}), "http://"+s.listener.Addr().String()),
	} {
		conn, err := net.Dial("tcp", s.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		for range 2 {
			_, _ = io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
		}
		answer, err := io.ReadAll(conn)
		if err != nil && !strings.Contains(err.Error(), "reset") || strings.Count(string(answer), "HTTP/1.1 4") != 1 {
			t.Errorf("%s: %v after %q", name, err, answer)
		}
	}
}

// What a client says about its terminal is limited and does not end the session, whatever it is.
func TestATerminalsSizeIsBounded(t *testing.T) {
	for name, dial := range protocols {
		for what, size := range map[string]string{
			"a string without end":   `{"Width":"` + strings.Repeat("x", 12<<20),
			"a number without end":   `{"Width":` + strings.Repeat("1", 4<<20),
			"nested without end":     strings.Repeat("[", 4<<20),
			"nothing, without end":   strings.Repeat(" ", 4<<20),
			"a size that is no size": `{"Width":-5,"Height":70000}`,
			"no JSON":                "\x00\xff",
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				s := started(t)
				sized := make(chan session.TerminalSize, 10)
				ended := make(chan struct{})
				c := dial(t, s.announced(t, fakeCommand{everything, "c", func(_ context.Context, s session.Streams) error {
					go func() {
						defer close(ended)
						for {
							size, ok := s.Resize()
							if !ok {
								return
							}
							sized <- size
						}
					}()
					_, err := io.Copy(s.Out, s.In)
					return err
				}}))
				_, _ = io.WriteString(c.resize, `{"Width":80,"Height":24}`)
				if got := <-sized; got.Width != 80 || got.Height != 24 {
					t.Errorf("the size is %+v", got)
				}
				before := heap()
				if _, err := io.WriteString(c.resize, size); err != nil {
					t.Fatal(err)
				}
				if _, err := io.WriteString(c.in, "on\n"); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(c.out, make([]byte, 3)); err != nil {
					t.Errorf("the session has ended: %v", err)
				}
				if now := heap(); now > before+8 {
					t.Errorf("the heap has grown from %d to %d MiB", before, now)
				}
			})
		}
	}
}

// rawSPDY connects a client that writes its own frames.
func rawSPDY(t *testing.T, where string) net.Conn {
	t.Helper()
	u, _ := url.Parse(where)
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n%s: v4.channel.k8s.io\r\n\r\n", u.Path, protocolHeader)
	for got := ""; !strings.HasSuffix(got, "\r\n\r\n"); {
		var b [1]byte
		if _, err := io.ReadFull(conn, b[:]); err != nil {
			t.Fatalf("%v after %q", err, got)
		}
		got += string(b[:])
	}
	return conn
}

func dataHead(id uint32, length int) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, id), uint32(length))
}

// A command that does not read blocks its client. No input is kept for it, and it gets all input
// when it reads.
func TestInputThatIsNotReadIsNotGathered(t *testing.T) {
	const size = 12 << 20
	for name, dial := range protocols {
		t.Run(name, func(t *testing.T) {
			s := started(t)
			before := heap()
			read := make(chan struct{})
			var got [8]int
			var senders, commands sync.WaitGroup
			payload := strings.Repeat("0123456789abcdef", size/16)
			for i := range got {
				commands.Add(1)
				c := dial(t, s.announced(t, fakeCommand{everything, "c", func(_ context.Context, s session.Streams) error {
					defer commands.Done()
					<-read
					n, err := io.CopyN(io.Discard, s.In, size)
					got[i] = int(n)
					return err
				}}))
				senders.Go(func() {
					// One message of the protocol, of the maximum length.
					if _, err := io.WriteString(c.in, payload); err != nil {
						t.Error(err)
					}
				})
			}
			works(t, s)
			// The client has two copies of each message.
			if now := heap(); now > before+uint64(3*len(got)*size>>20)+16 {
				t.Errorf("the heap has grown from %d to %d MiB", before, now)
			}
			close(read)
			senders.Wait()
			commands.Wait()
			for i, n := range got {
				if n != size {
					t.Errorf("command %d has read %d bytes, want %d", i, n, size)
				}
			}
		})
	}
}

// Frames that Kubernetes' clients do not send end the connection, or are ignored. Each costs at
// most the memory of one piece.
func TestStrangeFramesAreNotGathered(t *testing.T) {
	control := func(kind uint16, length int) []byte {
		return binary.BigEndian.AppendUint32([]byte{0x80, 3, byte(kind >> 8), byte(kind)}, uint32(length))
	}
	for name, frame := range map[string][]byte{
		"a control frame of 16 MiB":        append(control(1, 1<<24-1), make([]byte, 1<<24)...),
		"a setting of 16 MiB":              append(control(4, 1<<24-1), make([]byte, 1<<24)...),
		"data of no stream, of 16 MiB":     append(dataHead(77, 1<<24-1), make([]byte, 1<<24)...),
		"a stream that is shorter than it": append(control(1, 4), make([]byte, 1<<16)...),
		"an unknown frame":                 append(control(99, 8), make([]byte, 1<<16)...),
	} {
		t.Run(name, func(t *testing.T) {
			s := started(t)
			before := heap()
			ended := make(chan struct{})
			n := waitingCommand{fakeCommand{everything, "c", untilGone}, ended}
			conn := rawSPDY(t, s.announced(t, n))
			for range 8 {
				_ = conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
				if _, err := conn.Write(frame); err != nil {
					break
				}
			}
			if now := heap(); now > before+24 {
				t.Errorf("the heap has grown from %d to %d MiB", before, now)
			}
			conn.Close()
			<-ended
			works(t, s)
		})
	}
}

// Headers that are small in transit and large when unpacked end the connection. So do streams with
// a number that a client must not use.
func TestHeadersAndNumbersOfStreamsAreBounded(t *testing.T) {
	bomb := http.Header{"streamType": {strings.Repeat("x", 4<<20)}}
	many := http.Header{}
	for i := range 5000 {
		many.Add(fmt.Sprint("h", i), "x")
	}
	for name, frame := range map[string]framing.SynStreamFrame{
		"a value of 4 MiB": {StreamId: 1, Headers: bomb}, "5000 headers": {StreamId: 1, Headers: many},
		"an even number": {StreamId: 2, Headers: http.Header{"streamType": {"error"}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := started(t)
			ended := make(chan struct{})
			conn := rawSPDY(t, s.announced(t, waitingCommand{fakeCommand{everything, "c", untilGone}, ended}))
			framer, err := framing.NewFramer(conn, conn)
			if err != nil {
				t.Fatal(err)
			}
			before := heap()
			_ = framer.WriteFrame(&frame)
			<-ended
			if now := heap(); now > before+8 {
				t.Errorf("the heap has grown from %d to %d MiB", before, now)
			}
		})
	}
}

type waitingCommand struct {
	fakeCommand
	ended chan struct{}
}

func (n waitingCommand) serve(w http.ResponseWriter, r *http.Request) {
	defer close(n.ended)
	serveCommand(w, r, n.fakeCommand)
}

// A client opens many streams, or two of a kind, or unknown ones. It gets as many as allowed, and
// the session goes on. Nothing is left of it at the end.
func TestStreamsBeyondThoseOfTheSessionAreRefused(t *testing.T) {
	s := started(t)
	before := runtime.NumGoroutine()
	for range 20 {
		conn := connectSPDY(t, s.announced(t, fakeCommand{everything, "c", echo}))
		made := map[string]httpstream.Stream{}
		for _, kind := range []string{"nonsense", "error", "stdin", "stdin", "stdout", "resize", "stdout", "", "error", "data"} {
			stream, err := conn.CreateStream(http.Header{"streamType": {kind}})
			if err != nil {
				continue // refused
			}
			if made[kind] == nil {
				made[kind] = stream
			}
			if kind == "error" { // as all clients; something comes at once
				go func() { _, _ = io.Copy(io.Discard, stream) }()
			}
		}
		_, _ = io.WriteString(made["stdin"], "hello\n")
		if _, err := io.ReadFull(made["stdout"], make([]byte, 6)); err != nil {
			t.Errorf("the session does not go on: %v", err)
		}
		conn.Close()
	}
	within(t, "all goroutines end", func() bool { return runtime.NumGoroutine() <= before+5 })
}

// Each container or pod may have some sessions, and all together have a limit.
func TestSessionsAreBoundedForEachObjectAndInTotal(t *testing.T) {
	s := started(t)
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	open := func(object string) bool {
		u, _ := url.Parse(s.announced(t, fakeCommand{everything, object, untilGone}))
		conn, err := net.Dial("tcp", u.Host)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n%s: v4.channel.k8s.io\r\n\r\n", u.Path, protocolHeader)
		answer := make([]byte, 12)
		if _, err := io.ReadFull(conn, answer); err != nil {
			t.Fatal(err)
		}
		return string(answer[9:]) == "101"
	}
	for i := range maxObjectSessions {
		if !open("greedy") {
			t.Fatalf("session %d is refused", i)
		}
	}
	if open("greedy") {
		t.Error("a container has more sessions than its share")
	}
	for i := maxObjectSessions; i < maxSessions; i++ {
		if !open(fmt.Sprint("other", i)) {
			t.Fatalf("session %d is refused", i)
		}
	}
	if open("one more") {
		t.Error("there are more sessions than there may be")
	}
	conns[0].Close()
	within(t, "an ended session makes room", func() bool { return open("greedy") })
}

// A client that sends GOAWAY has disconnected, even if its connection is still open.
func TestASessionEndsWhenItsClientSaysSo(t *testing.T) {
	for name, leave := range map[string]func(*testing.T, string){
		"SPDY": func(t *testing.T, where string) {
			conn := rawSPDY(t, where)
			framer, err := framing.NewFramer(conn, conn)
			if err != nil {
				t.Fatal(err)
			}
			for i, kind := range []string{"error", "stdin", "stdout", "resize"} {
				_ = framer.WriteFrame(&framing.SynStreamFrame{StreamId: framing.StreamId(2*i + 1), Headers: http.Header{"streamType": {kind}}})
			}
			_ = framer.WriteFrame(&framing.GoAwayFrame{})
		},
		"WebSocket": func(t *testing.T, where string) {
			_ = dialWS(t, where, "v5.channel.k8s.io").WriteClose(1000)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := started(t)
			ended := make(chan struct{})
			leave(t, s.announced(t, waitingCommand{fakeCommand{everything, "c", untilGone}, ended}))
			select {
			case <-ended:
			case <-time.After(endTimeout + 10*time.Second):
				t.Error("the session goes on")
			}
		})
	}
}
