package session

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
)

// says is a program that writes to both streams and ends with a code.
func says(out, errs string, code int) program {
	return func(p *process) wire.Exit {
		_, _ = p.out.WriteString(out)
		_, _ = p.err.WriteString(errs)
		return wire.Exit{Code: code}
	}
}

// hangs is a program that says much, runs until it is killed, and tells that it was.
func hangs(killed chan<- struct{}) program {
	return func(p *process) wire.Exit {
		_, _ = p.out.WriteString(strings.Repeat("x", 8*execOutputFree)) // more than a pipe holds: it is kept
		<-p.killed
		close(killed)
		return wire.Exit{Code: 137, Signal: 9}
	}
}

func TestExecSyncReturnsWhatTheCommandSaidAndItsExitCode(t *testing.T) {
	pinder, standIn := startPinder(t, says("out", "err", 3))
	s, _, log := node(t, pinder)
	got, err := s.ExecSync(t.Context(), "c", []string{"echo", "x"}, 0)
	if err != nil || string(got.Stdout) != "out" || string(got.Stderr) != "err" || got.Code != 3 {
		t.Fatalf("got %+v: %v", got, err)
	}
	got.Release()
	if used := s.outputs.used.Load(); used != 0 || log.Len() > 0 {
		t.Errorf("%d bytes are in use; the log has %q", used, log)
	}
	for _, c := range standIn.commands {
		var asked specs.Process
		if err := json.Unmarshal(c.Process, &asked); err != nil {
			t.Fatal(err)
		}
		if strings.Join(asked.Args, " ") != "echo x" || asked.Env[0] != "A=1" || asked.Terminal {
			t.Errorf("the process is %+v", asked)
		}
		// All that it starts can be killed with it; its streams belong to the user it runs as.
		if c.ID != "c" || !c.Group || c.Stdin || c.TTY || *c.Owner != (wire.Owner{UID: 5, GID: 6}) || c.TimeoutMillis != pod.RuntimeTimeout.Milliseconds() {
			t.Errorf("pinder was asked for %+v", c)
		}
	}
}

func TestACommandThatTakesTooLongIsKilled(t *testing.T) {
	killed := make(chan struct{})
	pinder, _ := startPinder(t, hangs(killed))
	s, _, _ := node(t, pinder)
	_, err := s.ExecSync(t.Context(), "c", []string{"sleep"}, 30*time.Millisecond)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "did not end within 30ms and was killed") {
		t.Errorf("got %v", err)
	}
	<-killed
	if used := s.outputs.used.Load(); used != 0 {
		t.Errorf("%d bytes are in use", used)
	}
}

func TestACommandWhoseCallerIsGoneIsKilled(t *testing.T) {
	killed := make(chan struct{})
	pinder, _ := startPinder(t, hangs(killed))
	s, _, _ := node(t, pinder)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(30*time.Millisecond, cancel)
	_, err := s.ExecSync(ctx, "c", []string{"sleep"}, time.Hour)
	if !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "within") {
		t.Errorf("got %v", err)
	}
	<-killed
}

func TestAnExitCodeThatIsLostIsNoSuccess(t *testing.T) {
	pinder, _ := startPinder(t, func(*process) wire.Exit { return wire.Exit{Unknown: true} })
	s, _, _ := node(t, pinder)
	if got, err := s.ExecSync(t.Context(), "c", []string{"x"}, 0); !errdefs.IsUnavailable(err) {
		t.Errorf("ExecSync: %+v, %v", got, err)
	}
	if code, err := s.Exec(t.Context(), "c", []string{"x"}, Streams{}); !errdefs.IsUnavailable(err) {
		t.Errorf("Exec: %d, %v", code, err)
	}
}

func TestAChildThatHoldsTheOutputIsNotWaitedForLong(t *testing.T) {
	t.Parallel()
	children := make(chan *os.File, 1)
	pinder, _ := startPinder(t, func(p *process) wire.Exit {
		fd, err := unix.Dup(int(p.out.Fd()))
		if err != nil {
			return wire.Exit{Code: 1}
		}
		children <- os.NewFile(uintptr(fd), "child")
		return says("said", "", 0)(p)
	})
	s, _, _ := node(t, pinder)
	begin := time.Now()
	got, err := s.ExecSync(t.Context(), "c", []string{"daemonize"}, 0)
	if took := time.Since(begin); err != nil || string(got.Stdout) != "said" || took < drainTimeout || took > 5*drainTimeout {
		t.Errorf("got %+v after %s: %v", got, took, err)
	}
	// Its reader is gone with the answer.
	child := <-children
	if _, err := child.WriteString("more"); !errors.Is(err, unix.EPIPE) {
		t.Errorf("the child's next word: %v", err)
	}
	child.Close()
}

func TestOutputPastTheLimitIsDroppedAndBlocksNoCommand(t *testing.T) {
	block := strings.Repeat("x", 1<<20)
	pinder, _ := startPinder(t, func(p *process) wire.Exit {
		for range execOutputLimit>>20 + 1 {
			if _, err := p.out.WriteString(block); err != nil {
				return wire.Exit{Code: 1}
			}
		}
		return wire.Exit{}
	})
	s, _, log := node(t, pinder)
	got, err := s.ExecSync(t.Context(), "c", []string{"yes"}, 0)
	if err != nil || got.Code != 0 || len(got.Stdout) != execOutputLimit {
		t.Errorf("%d bytes, code %d: %v", len(got.Stdout), got.Code, err)
	}
	if log.Len() > 0 {
		t.Errorf("CRI's own limit is nothing to warn of: %s", log)
	}
	got.Release()
	// Where there is no memory, the answer has the beginning, and the operator is told.
	s.outputs.limit = 0
	got, err = s.ExecSync(t.Context(), "c", []string{"yes"}, 0)
	if err != nil || got.Code != 0 || len(got.Stdout) != execOutputFree || !strings.Contains(log.String(), "output of ExecSync is cut") {
		t.Errorf("%d bytes, code %d: %v; the log has %q", len(got.Stdout), got.Code, err, log)
	}
}

func TestWhatSpeaksAgainstACommand(t *testing.T) {
	pinder, standIn := startPinder(t, says("", "", 0))
	standIn.refuse(&wire.Error{Code: wire.CodeFailedPrecondition, Text: "it is frozen"})
	cmd := []string{"x"}
	for name, c := range map[string]struct {
		id     string
		cmd    []string
		state  pod.State
		bundle bool
		class  func(error) bool
		passes bool // the check
	}{
		"an unknown container":       {"d", cmd, pod.Running, true, errdefs.IsNotFound, false},
		"one that does not run yet":  {"c", cmd, pod.Created, true, errdefs.IsFailedPrecondition, false},
		"one that has ended":         {"c", cmd, pod.Exited, true, errdefs.IsFailedPrecondition, false},
		"no command":                 {"c", nil, pod.Running, true, errdefs.IsInvalidArgument, false},
		"an empty command":           {"c", []string{""}, pod.Running, true, errdefs.IsInvalidArgument, false},
		"a bundle that is not there": {"c", cmd, pod.Running, false, func(err error) bool { return errors.Is(err, os.ErrNotExist) }, false},
		"pinder":                     {"c", cmd, pod.Running, true, errdefs.IsFailedPrecondition, true},
	} {
		s, rec, _ := node(t, pinder)
		rec.State = c.state
		if !c.bundle {
			if err := os.RemoveAll(s.Places.Bundle("c")); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.CheckExec(c.id, c.cmd); !c.passes && !c.class(err) || c.passes && err != nil {
			t.Errorf("%s: the check: %v", name, err)
		}
		if _, err := s.ExecSync(t.Context(), c.id, c.cmd, 0); !c.class(err) {
			t.Errorf("%s: ExecSync: %v", name, err)
		}
		if _, err := s.Exec(t.Context(), c.id, c.cmd, Streams{Out: io.Discard}); !c.class(err) {
			t.Errorf("%s: Exec: %v", name, err)
		}
	}
}
