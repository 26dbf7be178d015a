package streamclient

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"
)

// serving is a server that does what it likes with each session.
func serving(t *testing.T, serve func(ws *websocket.Conn)) (where string) {
	t.Helper()
	s := httptest.NewServer(websocket.Server{
		Handshake: func(config *websocket.Config, _ *http.Request) error { return nil },
		Handler: func(ws *websocket.Conn) {
			ws.PayloadType = websocket.BinaryFrame
			serve(ws)
		},
	})
	t.Cleanup(s.CloseClientConnections)
	return s.URL + "/exec/token"
}

// says sends one message to a channel.
func says(ws *websocket.Conn, channel byte, text string) {
	_ = websocket.Message.Send(ws, append([]byte{channel}, text...))
}

func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

const success = `{"status":"Success"}`

func TestAnExitCodeIsTheServersAndNothingElseIs(t *testing.T) {
	for status, want := range map[string]struct {
		code int
		told string
	}{
		success: {0, ""},
		`{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}`:                                {7, ""},
		`{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"x","message":"1"},{"reason":"ExitCode","message":"255"}]}}`: {255, ""},
		`{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"0"}]}}`:                                {0, "not with which exit code"},
		`{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"x"}]}}`:                                {0, "not with which exit code"},
		`{"status":"Failure","reason":"NonZeroExitCode"}`:                                                                                           {0, "not with which exit code"},
		`{"status":"Failure","message":"no such \u001b[31mthing"}`:                                                                                  {0, "no such ?[31mthing"},
		`{"status":"Failure"}`: {0, "not why"},
		`{}`:                   {0, "not why"},
		`{"status":7}`:         {0, "no status"},
		`[{}`:                  {0, ErrEarly.Error()},
		``:                     {0, ErrEarly.Error()},
	} {
		t.Run(status, func(t *testing.T) {
			where := serving(t, func(ws *websocket.Conn) { says(ws, channelStatus, status) })
			code, err := Exec(limited(t), where, Streams{})
			if code != want.code || (err == nil) != (want.told == "") || err != nil && !strings.Contains(err.Error(), want.told) {
				t.Errorf("code %d, %v", code, err)
			}
		})
	}
}

// The server closes the connection in an orderly way (x/net does at the handler's end), or the connection breaks.
func TestASessionWithoutAResultHasEndedEarly(t *testing.T) {
	for name, end := range map[string]func(*websocket.Conn){
		"closed normally": func(ws *websocket.Conn) { _ = ws.WriteClose(1000) },
		"going away":      func(ws *websocket.Conn) { _ = ws.WriteClose(1001) },
		"half a status":   func(ws *websocket.Conn) { says(ws, channelStatus, `{"status":"Succ`) },
	} {
		t.Run(name, func(t *testing.T) {
			where := serving(t, func(ws *websocket.Conn) {
				says(ws, channelOut, "some output")
				end(ws)
			})
			var out strings.Builder
			if _, err := Exec(limited(t), where, Streams{Out: &out}); !errors.Is(err, ErrEarly) {
				t.Errorf("exec: %v", err)
			}
			if out.String() != "some output" {
				t.Errorf("output %q", out.String())
			}
			if err := Attach(limited(t), where, Streams{}); !errors.Is(err, ErrEarly) {
				t.Errorf("attach: %v", err)
			}
		})
	}
}

func TestARefusalIsShownInTheServersWords(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "too many sessions are open", http.StatusServiceUnavailable)
	}))
	defer s.Close()
	_, err := Exec(limited(t), s.URL+"/exec/secret", Streams{})
	if err == nil || !strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), "too many sessions are open") {
		t.Errorf("%v", err)
	}
	for _, where := range []string{"", "https://127.0.0.1/exec/secret", "http:///exec/secret", "http://127.0.0.1:1/exec/secret", "\x00secret"} {
		if _, err := Exec(limited(t), where, Streams{}); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", where, err)
		}
	}
}

func TestAServerOfAnotherProtocolIsRefused(t *testing.T) {
	s := httptest.NewServer(websocket.Server{
		Handshake: func(config *websocket.Config, _ *http.Request) error { config.Protocol = nil; return nil },
		Handler:   func(ws *websocket.Conn) { says(ws, channelStatus, success) },
	})
	defer s.Close()
	if _, err := Exec(limited(t), s.URL, Streams{}); err == nil || !strings.Contains(err.Error(), commandProtocol) {
		t.Errorf("%v", err)
	}
}

// answering is a server that sends bytes to each connection, whatever is asked.
func answering(t *testing.T, answer string, repeat int) (where string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = conn.Read(make([]byte, 1<<10))
				for range repeat {
					if _, err := io.WriteString(conn, answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	return "http://" + l.Addr().String() + "/exec/token"
}

func TestAnAnswerWithoutEndIsNotKept(t *testing.T) {
	for name, answer := range map[string]string{
		"a line": "HTTP/1.1 101 " + strings.Repeat("x", 1<<10), "headers": "X: y\r\n", "a body": "HTTP/1.1 404 No\r\n\r\n" + strings.Repeat("x", 1<<10),
	} {
		t.Run(name, func(t *testing.T) {
			before := allocated()
			if _, err := Exec(limited(t), answering(t, answer, 1<<16), Streams{}); err == nil {
				t.Error("no error")
			}
			if now := allocated(); now > before+4 {
				t.Errorf("%d MiB were allocated", now-before)
			}
		})
	}
}

// allocated is how much memory was ever allocated, in MiB.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc >> 20
}

// Messages and statuses of any length, unknown channels, pings and empty messages.
func TestWhatAServerSendsIsNotKept(t *testing.T) {
	const size = 32 << 20
	big := strings.Repeat("x", size)
	where := serving(t, func(ws *websocket.Conn) {
		says(ws, channelOut, "")
		_ = websocket.Message.Send(ws, []byte{})
		says(ws, 77, big)
		w, _ := ws.NewFrameWriter(websocket.PingFrame)
		_, _ = w.Write([]byte("ping"))
		says(ws, channelOut, big)
		says(ws, channelErr, big)
		says(ws, channelStatus, success)
		_, _ = io.Copy(io.Discard, ws) // the answer to the ping
	})
	out, errs := &counting{}, &counting{}
	if code, err := Exec(limited(t), where, Streams{Out: out, Err: errs}); err != nil || code != 0 {
		t.Errorf("%d, %v", code, err)
	}
	if out.n != size || errs.n != size || out.largest > maxPiece || errs.largest > maxPiece {
		t.Errorf("%+v and %+v, want %d", out, errs, size)
	}
	where = serving(t, func(ws *websocket.Conn) { says(ws, channelStatus, `{"message":"`+big+`"}`) })
	if _, err := Exec(limited(t), where, Streams{}); err == nil || errors.Is(err, ErrEarly) {
		t.Errorf("a status without end: %v", err)
	}
}

type counting struct{ n, largest int }

func (c *counting) Write(p []byte) (int, error) {
	c.n, c.largest = c.n+len(p), max(c.largest, len(p))
	return len(p), nil
}

func TestCancellationEndsASession(t *testing.T) {
	gone := make(chan struct{})
	where := serving(t, func(ws *websocket.Conn) {
		_, _ = io.Copy(io.Discard, ws)
		close(gone)
	})
	ctx, cancel := context.WithCancelCause(limited(t))
	why := errors.New("the user has had enough")
	time.AfterFunc(50*time.Millisecond, func() { cancel(why) })
	in, hold := io.Pipe()
	defer hold.Close()
	if _, err := Exec(ctx, where, Streams{In: in}); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Error("the connection is still open")
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error)  { return 0, errors.New("broken") }
func (broken) Write([]byte) (int, error) { return 0, errors.New("broken") }

type panicking struct{}

func (panicking) Write([]byte) (int, error) { panic("on purpose") }

// The user's ends fail. An input that fails has not ended; the command must not take it for that.
func TestAFailureOfTheUsersStreamsEndsTheSession(t *testing.T) {
	ended := make(chan string, 3)
	where := serving(t, func(ws *websocket.Conn) {
		says(ws, channelOut, "x")
		var got []byte
		_ = websocket.Message.Receive(ws, &got)
		ended <- string(got)
	})
	for name, s := range map[string]Streams{"broken": {In: broken{}}, "broken ": {Out: broken{}}, "internal error": {Out: panicking{}}} {
		if _, err := Exec(limited(t), where, s); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(name)) {
			t.Errorf("%q: %v", name, err)
		}
		if got := <-ended; got != "" {
			t.Errorf("%q: the server got %q", name, got)
		}
	}
}

// Output before the server's word is no sign of the beginning.
func TestTheBeginningIsTheServersWord(t *testing.T) {
	asked := make(chan struct{})
	where := serving(t, func(ws *websocket.Conn) {
		says(ws, channelOut, "")
		says(ws, channelOut, "x")
		<-asked
		says(ws, channelStatus, "")
		says(ws, channelStatus, "")
		says(ws, channelStatus, success)
	})
	var out strings.Builder
	count := 0
	_, err := Exec(limited(t), where, Streams{
		Out:   io.MultiWriter(&out, closing{asked}),
		Begun: func() { count++ },
	})
	if err != nil || count != 1 || out.String() != "x" {
		t.Errorf("%d times, %v, output %q", count, err, out.String())
	}
}

type closing struct{ done chan struct{} }

func (c closing) Write(p []byte) (int, error) { close(c.done); return len(p), nil }

func TestInputIsSentToItsEnd(t *testing.T) {
	const size = 5 << 20
	input := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	where := serving(t, func(ws *websocket.Conn) {
		var all []byte
		for {
			var message []byte
			if err := websocket.Message.Receive(ws, &message); err != nil {
				return
			}
			if message[0] == channelEnd {
				break
			}
			all = append(all, message[1:]...)
		}
		if bytes.Equal(all, input) {
			says(ws, channelStatus, success)
		}
	})
	if _, err := Exec(limited(t), where, Streams{In: bytes.NewReader(input)}); err != nil {
		t.Error(err)
	}
}
