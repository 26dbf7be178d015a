package stream

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	framing "github.com/moby/spdystream/spdy"
	"golang.org/x/net/websocket"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/pinfold-run/pinfold/internal/pod/session"
)

// judge says how a session of Exec or Attach ended, as the field's clients find out. It returns when the session has ended.
type judge func(t *testing.T, where string) error

// judges are the protocols of Exec and Attach.
var judges = map[string]judge{
	"SPDY v4":                       judgeSPDY,
	"WebSocket v5":                  judgeChannels("v5.channel.k8s.io"),
	"WebSocket v4":                  judgeChannels("v4.channel.k8s.io"),
	"WebSocket v4 base64":           judgeChannels("v4.base64.channel.k8s.io"),
	"WebSocket v1":                  judgeChannels("channel.k8s.io"),
	"WebSocket v1 base64":           judgeChannels("base64.channel.k8s.io"),
	"WebSocket without subprotocol": judgeChannels(""),
}

// judgeStatus is how client-go reads the status: no text at all is success.
func judgeStatus(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	var s status
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("no status: %q", text)
	}
	if s.Status == "Success" {
		return nil
	}
	return errors.New(s.Message)
}

// judgeSPDY is a client of client-go's library, which knows no difference between the end of a stream and that of the
// connection, in whichever way.
func judgeSPDY(t *testing.T, where string) error {
	conn := connectSPDY(t, where)
	var failed httpstream.Stream
	for _, kind := range []string{"error", "stdin", "stdout"} {
		s, err := conn.CreateStream(http.Header{"streamType": {kind}})
		if err != nil {
			return err
		}
		if kind == "error" {
			failed = s
		} else {
			go func() { _, _ = io.Copy(io.Discard, s) }()
		}
	}
	text, err := io.ReadAll(failed)
	return errors.Join(err, judgeStatus(text))
}

// judgeChannels is a client of WebSockets. It knows whether the server has closed the connection, and why.
func judgeChannels(protocol string) judge {
	return func(t *testing.T, where string) error {
		ws := dialWS(t, where, protocol)
		defer ws.Close()
		var text []byte
		for {
			frame, err := ws.NewFrameReader()
			if err != nil {
				return fmt.Errorf("the connection ended without a close message: %w", err)
			}
			payload, err := io.ReadAll(frame)
			if err != nil {
				return err
			}
			if frame.PayloadType() == websocket.CloseFrame {
				if code := binary.BigEndian.Uint16(payload); code != closeNormally {
					return fmt.Errorf("closed with code %d", code)
				}
				break
			}
			if strings.Contains(protocol, "base64") && len(payload) > 0 {
				payload[0] -= '0'
				rest, err := base64.StdEncoding.DecodeString(string(payload[1:]))
				if err != nil {
					return err
				}
				payload = append(payload[:1], rest...)
			}
			if len(payload) > 1 && payload[0] == channelStatus {
				text = append(text, payload[1:]...)
			}
		}
		switch {
		case strings.HasPrefix(protocol, "v"):
			return judgeStatus(text)
		case len(text) > 0:
			return errors.New(string(text))
		}
		return nil
	}
}

// cutOff are the ways in which a session ends early, with what the client is told; "" where nothing can be told.
var cutOff = map[string]struct {
	told string
	cut  func(s *Server)
}{
	"the daemon is stopped": {restarting + ": the command goes on", func(s *Server) { _ = s.Close() }},
	"the session is idle": {"nothing was sent or received", func(s *Server) {
		for _, c := range s.connections() {
			c.expired()
		}
	}},
	"the connection is reset": {"", func(s *Server) {
		for _, c := range s.connections() {
			_ = c.Conn.(*net.TCPConn).SetLinger(0)
			_ = c.Conn.Close()
		}
	}},
	"the daemon is killed": {"", func(s *Server) {
		for _, c := range s.connections() {
			_ = c.Conn.Close()
		}
	}},
}

func (s *Server) connections() []*watchedConn {
	s.listener.mu.Lock()
	defer s.listener.mu.Unlock()
	var all []*watchedConn
	for c := range s.listener.open {
		all = append(all, c)
	}
	return all
}

// judged gives a client's judgment, which must not take long.
func judged(t *testing.T, judge judge, where string) <-chan error {
	t.Helper()
	said := make(chan error, 1)
	go func() { said <- judge(t, where) }()
	return said
}

func TestASessionThatEndsEarlyNeverEndsWithSuccess(t *testing.T) {
	for protocol, judge := range judges {
		for how, cut := range cutOff {
			t.Run(protocol+"/"+how, func(t *testing.T) {
				s := started(t)
				begun := make(chan struct{})
				said := judged(t, judge, s.announced(t, fakeCommand{options{stdin: true, stdout: true}, "c", func(ctx context.Context, _ session.Streams) error {
					close(begun)
					<-ctx.Done()
					return outcome(ctx, ctx.Err())
				}}))
				<-begun
				cut.cut(s)
				select {
				case err := <-said:
					if err == nil || !strings.Contains(err.Error(), cut.told) {
						t.Errorf("the client is told %v, want %q", err, cut.told)
					}
				case <-time.After(endTimeout):
					t.Error("the client is told nothing")
				}
			})
		}
	}
}

// A command that ends is told as before.
func TestASessionThatEndsByItselfTellsItsResult(t *testing.T) {
	for protocol, judge := range judges {
		t.Run(protocol, func(t *testing.T) {
			s := started(t)
			for want, result := range map[string]error{"": nil, "exit code 7": exitError(7), "no such thing": errors.New("no such thing")} {
				err := <-judged(t, judge, s.announced(t, fakeCommand{options{stdin: true, stdout: true}, "c", func(context.Context, session.Streams) error {
					return result
				}}))
				if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
					t.Errorf("%v: %v", result, err)
				}
			}
		})
	}
}

// A panic ends one session, with a failure, and is logged. The daemon goes on.
func TestAPanicEndsItsSessionWithAFailure(t *testing.T) {
	for protocol, judge := range judges {
		t.Run(protocol, func(t *testing.T) {
			var log strings.Builder
			s := started(t)
			s.log = slog.New(slog.NewTextHandler(&log, nil))
			// The server has no package session, so the call panics.
			request := &runtimeapi.ExecRequest{ContainerId: "c", Stdin: true, Stdout: true}
			if err := <-judged(t, judge, s.announced(t, execSession{s, request})); err == nil || !strings.Contains(err.Error(), errLost.Error()) {
				t.Errorf("in the session: %v", err)
			}
			if err := <-judged(t, judge, s.announced(t, panics{fakeCommand{options: options{stdin: true, stdout: true}, name: "c"}})); err == nil {
				t.Error("in the protocol: success")
			}
			works(t, s)
			_ = s.Close()
			if got := strings.Count(log.String(), "a session panicked"); got != 2 {
				t.Errorf("%d panics are logged:\n%s", got, log.String())
			}
		})
	}
}

type panics struct{ fakeCommand }

func (n panics) serve(w http.ResponseWriter, r *http.Request) { serveCommand(w, r, n) }
func (panics) run(context.Context, session.Streams) error     { panic("on purpose") }

// In these versions a server that is killed looks like success.
func TestProtocolsInWhichSilenceIsSuccessAreRefused(t *testing.T) {
	s := started(t)
	for _, protocol := range []string{"channel.k8s.io", "v2.channel.k8s.io", "v3.channel.k8s.io"} {
		req, _ := http.NewRequest(http.MethodPost, s.announced(t, fakeCommand{everything, "c", echo}), nil)
		req.Header.Set(protocolHeader, protocol)
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "SPDY/3.1")
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden || resp.Header.Get("X-Accepted-Stream-Protocol-Versions") != "v4.channel.k8s.io" {
			t.Errorf("%s: %s, %v", protocol, resp.Status, resp.Header)
		}
	}
}

// When the daemon ends, a command that ends by itself may do so. Nothing new begins, and nobody waits for a terminal.
func TestDrainWaitsForCommandsAndForNothingElse(t *testing.T) {
	s := started(t)
	release, begun := make(chan struct{}), make(chan struct{}, 2)
	command := judged(t, judgeSPDY, s.announced(t, fakeCommand{options{stdin: true, stdout: true}, "c", func(context.Context, session.Streams) error {
		begun <- struct{}{}
		<-release
		return nil
	}}))
	terminal := judged(t, judgeChannels("v5.channel.k8s.io"), s.announced(t, fakeCommand{everything, "c", func(ctx context.Context, _ session.Streams) error {
		begun <- struct{}{}
		return outcome(ctx, untilGoneOr(ctx))
	}}))
	<-begun
	<-begun
	late := s.announced(t, fakeCommand{everything, "c", echo})
	s.Drain(0)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		s.Drain(time.Minute)
	}()
	resp, err := http.Get(late)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable || string(text) != restarting {
		t.Errorf("a new session: %s, %s", resp.Status, text)
	}
	select {
	case <-drained:
		t.Error("the command was not waited for")
	case err := <-terminal:
		t.Errorf("the terminal was cut off before the command had ended: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if err := <-command; err != nil {
		t.Errorf("the command that ended in time: %v", err)
	}
	select {
	case <-drained:
	case <-time.After(10 * time.Second):
		t.Error("the terminal was waited for")
	}
	begin := time.Now()
	_ = s.Close()
	if err := <-terminal; err == nil || !strings.Contains(err.Error(), restarting) {
		t.Errorf("the terminal: %v", err)
	}
	if took := time.Since(begin); took > closeTimeout {
		t.Errorf("the server took %s to close", took)
	}
}

func untilGoneOr(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

// A client that reads nothing does not delay the end of the daemon for long, and is not told of a success.
func TestAClientThatDoesNotReadDelaysTheEndByLittle(t *testing.T) {
	s := started(t)
	conn := rawSPDY(t, s.announced(t, fakeCommand{options{stdout: true}, "c", func(ctx context.Context, s session.Streams) error {
		for {
			if _, err := s.Out.Write(make([]byte, 1<<20)); err != nil {
				return outcome(ctx, err)
			}
		}
	}}))
	writeStreams(t, conn, "error", "stdout")
	within(t, "the session begins", func() bool { return s.serves(func(announcement) bool { return true }) })
	begin := time.Now()
	_ = s.Close()
	if took := time.Since(begin); took > closeTimeout+time.Second {
		t.Errorf("the server took %s to close", took)
	}
}

// writeStreams opens a raw client's streams.
func writeStreams(t *testing.T, conn net.Conn, kinds ...string) {
	t.Helper()
	framer, err := framing.NewFramer(conn, conn)
	if err != nil {
		t.Fatal(err)
	}
	for i, kind := range kinds {
		if err := framer.WriteFrame(&framing.SynStreamFrame{StreamId: framing.StreamId(2*i + 1), Headers: http.Header{"streamType": {kind}}}); err != nil {
			t.Fatal(err)
		}
	}
}
