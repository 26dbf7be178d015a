package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// sizes gives terminal sizes one after the other.
func sizes(all ...TerminalSize) func() (TerminalSize, bool) {
	return func() (TerminalSize, bool) {
		if len(all) == 0 {
			return TerminalSize{}, false
		}
		size := all[0]
		all = all[1:]
		return size, true
	}
}

func TestAClientsInputReachesTheCommandAndItsOutputTheClient(t *testing.T) {
	pinder, _ := startPinder(t, func(p *process) wire.Exit {
		said, err := io.ReadAll(p.in) // to the end of the input
		if err != nil {
			return wire.Exit{Code: 1}
		}
		return says(strings.ToUpper(string(said)), "done", 7)(p)
	})
	s, _, _ := node(t, pinder)
	var out, errs bytes.Buffer
	code, err := s.Exec(t.Context(), "c", []string{"upper"}, Streams{In: strings.NewReader("hello"), Out: &out, Err: &errs})
	if err != nil || code != 7 || out.String() != "HELLO" || errs.String() != "done" {
		t.Errorf("code %d, %q, %q: %v", code, &out, &errs, err)
	}
}

func TestACommandOfASessionIsAskedForWithoutAGroup(t *testing.T) {
	for _, in := range []io.Reader{nil, strings.NewReader("")} {
		pinder, standIn := startPinder(t, says("", "", 0))
		s, _, _ := node(t, pinder)
		if _, err := s.Exec(t.Context(), "c", []string{"x"}, Streams{In: in}); err != nil {
			t.Fatal(err)
		}
		for _, c := range standIn.asked() {
			// What it leaves running may be just what its client meant.
			if c.Group || c.TTY || c.Stdin != (in != nil) {
				t.Errorf("with input %v: %+v", in, c)
			}
		}
	}
}

func TestATerminalHasTheClientsSizeAndShowsAllOutput(t *testing.T) {
	begun := make(chan struct{})
	pinder, _ := startPinder(t, func(p *process) wire.Exit {
		close(begun)
		for range 500 {
			size, err := unix.IoctlGetWinsize(int(p.out.Fd()), unix.TIOCGWINSZ)
			if err == nil && size.Col == 100 && size.Row == 40 {
				return says("out", "err", 0)(p)
			}
			time.Sleep(10 * time.Millisecond)
		}
		return wire.Exit{Code: 1}
	})
	s, _, _ := node(t, pinder)
	next := sizes(TerminalSize{80, 24}, TerminalSize{100, 40})
	var out bytes.Buffer
	code, err := s.Exec(t.Context(), "c", []string{"sh"}, Streams{
		In: strings.NewReader(""), Out: &out, TTY: true,
		Resize: func() (TerminalSize, bool) { <-begun; return next() },
	})
	if err != nil || code != 0 || out.String() != "outerr" {
		t.Errorf("code %d, %q: %v", code, &out, err)
	}
}

func TestTheInputOfACommandWhoseClientIsGoneEndsAndTheCommandGoesOn(t *testing.T) {
	ended := make(chan error, 1)
	killed := false
	pinder, _ := startPinder(t, func(p *process) wire.Exit {
		_, err := io.ReadAll(p.in)
		select {
		case <-p.killed:
			killed = true
		case <-time.After(50 * time.Millisecond):
		}
		ended <- err
		return wire.Exit{}
	})
	s, _, _ := node(t, pinder)
	ctx, cancel := context.WithCancel(t.Context())
	silent, keep := io.Pipe() // the client says nothing
	defer keep.Close()
	time.AfterFunc(30*time.Millisecond, cancel)
	_, err := s.Exec(ctx, "c", []string{"cat"}, Streams{In: silent})
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "the client is gone") {
		t.Errorf("got %v", err)
	}
	if err := <-ended; err != nil || killed {
		t.Errorf("the command's input: %v; killed: %t", err, killed)
	}
}

func TestACommandThatWritesToAClientThatIsGoneGetsASIGPIPE(t *testing.T) {
	pinder, _ := startPinder(t, func(p *process) wire.Exit {
		for range 1000 {
			if _, err := p.out.WriteString("x"); errors.Is(err, unix.EPIPE) {
				return wire.Exit{Code: 141}
			}
			time.Sleep(time.Millisecond)
		}
		return wire.Exit{}
	})
	s, _, _ := node(t, pinder)
	closed, client := io.Pipe()
	closed.Close()
	if code, err := s.Exec(t.Context(), "c", []string{"yes"}, Streams{Out: client}); err != nil || code != 141 {
		t.Errorf("code %d: %v", code, err)
	}
}

func TestOutputThatNoClientWantsBlocksNoCommand(t *testing.T) {
	pinder, _ := startPinder(t, says(strings.Repeat("x", 1<<20), strings.Repeat("y", 1<<20), 4))
	s, _, _ := node(t, pinder)
	if code, err := s.Exec(t.Context(), "c", []string{"yes"}, Streams{}); err != nil || code != 4 {
		t.Errorf("code %d: %v", code, err)
	}
}

func TestInputThatNoCommandReadsIsTakenAllTheSame(t *testing.T) {
	read, write := io.Pipe()
	done := make(chan struct{})
	pinder, _ := startPinder(t, func(p *process) wire.Exit {
		_ = p.in.Close()
		<-done // until the client has sent all of it
		return wire.Exit{}
	})
	s, _, _ := node(t, pinder)
	go func() {
		defer close(done)
		_, _ = write.Write(make([]byte, 1<<20)) // else the client's other streams would stand still
	}()
	if code, err := s.Exec(t.Context(), "c", []string{"true"}, Streams{In: read}); err != nil || code != 0 {
		t.Errorf("code %d: %v", code, err)
	}
}

func TestSizesAreTakenWhateverBecomesOfThem(t *testing.T) {
	var got []TerminalSize
	follow(sizes(TerminalSize{1, 2}, TerminalSize{3, 4}), func(size TerminalSize) error {
		got = append(got, size)
		return errors.New("the terminal has just ended")
	})
	if len(got) != 2 || got[1] != (TerminalSize{3, 4}) {
		t.Errorf("got %v", got)
	}
	follow(nil, func(TerminalSize) error { t.Error("a size of a client that has none"); return nil })
}
