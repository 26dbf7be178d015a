package stream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	framing "github.com/moby/spdystream/spdy"

	"github.com/pinfold-run/pinfold/internal/pod/session"
)

// A command ends while its client still sends input. If a connection with unread bytes is closed,
// the kernel discards what was written before (RFC 1122, 4.2.2.13).
func TestNothingOfTheOutputIsLostWhenACommandEndsBeforeItsInput(t *testing.T) {
	const size = 4 << 20
	for name, dial := range protocols {
		t.Run(name, func(t *testing.T) {
			s := started(t)
			c := dial(t, s.announced(t, fakeCommand{everything, "ends", func(_ context.Context, s session.Streams) error {
				if _, err := io.ReadFull(s.In, make([]byte, 1<<10)); err != nil {
					return err
				}
				_, err := s.Out.Write(bytes.Repeat([]byte("x"), size))
				return err
			}}))
			defer c.close()
			go func() {
				for piece := []byte(strings.Repeat("i", 16<<10)); ; {
					if _, err := c.in.Write(piece); err != nil {
						return
					}
				}
			}()
			outcome := make(chan string, 1)
			go func() {
				all, _ := io.ReadAll(c.outcome)
				outcome <- string(all)
			}()
			// The client is slow, so that most of the output is in transit when the command ends.
			time.Sleep(100 * time.Millisecond)
			n, _ := io.Copy(io.Discard, c.out)
			if n != size {
				t.Errorf("%d bytes of output of %d", n, size)
			}
			select {
			case got := <-outcome:
				if !strings.Contains(got, "Success") {
					t.Errorf("outcome %q", got)
				}
			case <-time.After(20 * time.Second):
				t.Error("no outcome")
			}
		})
	}
}

// Clients ping while they still read the last output of a command.
func TestAPingAfterTheEndTakesNothingBack(t *testing.T) {
	const size = 4 << 20
	s := started(t)
	where := s.announced(t, fakeCommand{options{stdout: true}, "ends", func(_ context.Context, s session.Streams) error {
		_, err := s.Out.Write(bytes.Repeat([]byte("x"), size))
		return err
	}})
	conn := rawSPDY(t, where)
	framer, err := framing.NewFramer(conn, conn)
	if err != nil {
		t.Fatal(err)
	}
	for i, kind := range []string{"error", "stdout"} {
		if err := framer.WriteFrame(&framing.SynStreamFrame{StreamId: framing.StreamId(2*i + 1), Headers: http.Header{"streamType": {kind}}}); err != nil {
			t.Fatal(err)
		}
	}
	got := 0
	for id, piece := uint32(1), make([]byte, 32<<10); ; id += 2 {
		n, err := conn.Read(piece)
		if got += n; errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("after %d bytes: %v", got, err)
		}
		_ = framer.WriteFrame(&framing.PingFrame{Id: id})
		time.Sleep(2 * time.Millisecond) // the client is slow: most of the output is in transit when the command ends
	}
	if got < size {
		t.Errorf("%d bytes of %d", got, size)
	}
}
