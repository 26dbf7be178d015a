package stream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/pinfold-run/pinfold/internal/pod/session"
	"github.com/pinfold-run/pinfold/internal/streamclient"
)

// The operator's command has a client of its own, package streamclient.

func TestOurClientPassesEverythingBothWays(t *testing.T) {
	s := started(t)
	input := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	where := s.announced(t, fakeCommand{options{stdin: true, stdout: true, stderr: true}, "c", func(_ context.Context, s session.Streams) error {
		s.Begun()
		_, err := io.Copy(io.MultiWriter(s.Out, s.Err), s.In) // until the client ends its input
		return errors.Join(err, exitError(7))
	}})
	var out, errs bytes.Buffer
	begun := false
	code, err := streamclient.Exec(t.Context(), where, streamclient.Streams{
		In: bytes.NewReader(input), Out: &out, Err: &errs, Begun: func() { begun = true },
	})
	if code != 7 || err != nil || !begun {
		t.Errorf("code %d, %v, begun %t", code, err, begun)
	}
	if !bytes.Equal(out.Bytes(), input) || !bytes.Equal(errs.Bytes(), input) {
		t.Errorf("%d and %d bytes of %d", out.Len(), errs.Len(), len(input))
	}
}

func TestOurClientTellsTheSizeOfItsTerminal(t *testing.T) {
	s := started(t)
	sizes := make(chan streamclient.Size, 2)
	sizes <- streamclient.Size{Width: 80, Height: 24}
	sizes <- streamclient.Size{Width: 132, Height: 50}
	where := s.announced(t, fakeCommand{everything, "c", func(_ context.Context, s session.Streams) error {
		for _, want := range []session.TerminalSize{{Width: 80, Height: 24}, {Width: 132, Height: 50}} {
			if got, ok := s.Resize(); !ok || got != want {
				return exitError(1)
			}
		}
		return nil
	}})
	if code, err := streamclient.Exec(t.Context(), where, streamclient.Streams{Sizes: sizes}); code != 0 || err != nil {
		t.Errorf("code %d, %v", code, err)
	}
}

func TestOurClientIsNeverToldOfASuccessThatIsNone(t *testing.T) {
	for how, cut := range cutOff {
		t.Run(how, func(t *testing.T) {
			s := started(t)
			begun := make(chan struct{})
			where := s.announced(t, fakeCommand{options{stdout: true}, "c", func(ctx context.Context, _ session.Streams) error {
				close(begun)
				return outcome(ctx, untilGoneOr(ctx))
			}})
			said := make(chan error, 1)
			go func() {
				_, err := streamclient.Exec(t.Context(), where, streamclient.Streams{})
				said <- err
			}()
			<-begun
			cut.cut(s)
			select {
			case err := <-said:
				if err == nil || !strings.Contains(err.Error(), cut.told) || cut.told == "" && !errors.Is(err, streamclient.ErrEarly) {
					t.Errorf("%v, want %q", err, cut.told)
				}
			case <-time.After(endTimeout):
				t.Error("nothing")
			}
		})
	}
}
