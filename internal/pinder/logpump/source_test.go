package logpump

import (
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// scripted is a terminal of which each MoveTo does the next thing: a text, or "" for no process that has it open.
type scripted struct {
	steps []string
	next  int
	at    chan int // each step, when it is done
}

func (s *scripted) Await(try func() (bool, time.Time)) error {
	for {
		if done, _ := try(); done {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
}

func (s *scripted) Waiting() (int, error) { return 0, nil }
func (s *scripted) Unfinished(int) int    { return 0 }
func (s *scripted) HungUp() bool          { return false }

func (s *scripted) MoveTo(pipe, _ int) (int, error) {
	if s.next == len(s.steps) {
		return 0, ErrUnopened
	}
	text := s.steps[s.next]
	s.next++
	defer func() { s.at <- s.next }()
	if text == "" {
		return 0, ErrUnopened
	}
	return unix.Write(pipe, []byte(text))
}

// A process may close the terminal, and another one open it: only the container's end is the end of its output.
func TestATerminalThatNoProcessHasOpenIsReadAgainUntilTheContainerEnds(t *testing.T) {
	var exited atomic.Bool
	private, err := NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(private.Read)
	path := t.TempDir() + "/log"
	log, _, err := Open("", path)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(int(log))
	p := New(new(Cursor), func() string { return "container a" }, exited.Load)
	p.Prepare(private, log)
	source := &scripted{steps: []string{"one\n", "", "two\n"}, at: make(chan int, 3)}
	p.Add(Stdout, source)
	ended := make(chan struct{})
	go func() {
		p.run(p.all()[0])
		close(ended)
	}()
	for range source.steps {
		<-source.at
	}
	select {
	case <-ended:
		t.Fatal("it ended before the container")
	case <-time.After(50 * time.Millisecond):
	}
	exited.Store(true)
	<-ended
	b, err := os.ReadFile(path)
	if err != nil || strings.Count(string(b), "stdout F ") != 2 {
		t.Errorf("%q, %v", b, err)
	}
}
