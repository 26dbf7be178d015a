// Package logwriter writes a program's log so that the log is never a way to stop the program: a reader that does
// not read, or is gone, costs lines, and nothing waits for it. The lines that are lost are counted, and the count is
// written as soon as the reader reads again.
//
// A program that uses it takes SIGPIPE (TakeBrokenPipes): Go ends a program by that signal when it writes to a
// broken standard output or standard error and nothing takes it.
package logwriter

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// limit bounds the lines that wait, in bytes. What comes beyond it is dropped.
const limit = 1 << 20

// Writer passes what is written to it on from a goroutine of its own, in order. Its methods may be called from any
// goroutine.
type Writer struct {
	to   io.Writer
	lost func(lines int) []byte
	wake chan struct{} // has room for one

	mu      sync.Mutex
	waiting []line
	size    int
	dropped int
}

// line is what one Write had, or the mark that a Flush waits for.
type line struct {
	text []byte
	mark chan struct{}
}

// New returns a Writer to to. lost makes the line that says how many were lost; nil is a line of plain text. The
// goroutine ends with the program.
func New(to io.Writer, lost func(lines int) []byte) *Writer {
	if lost == nil {
		lost = func(lines int) []byte { return fmt.Appendf(nil, "%d lines dropped: this was not read\n", lines) }
	}
	w := &Writer{to: to, lost: lost, wake: make(chan struct{}, 1)}
	go w.run()
	return w
}

// Write takes one line, or drops it if too many wait. It never blocks and never fails.
func (w *Writer) Write(text []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.size+len(text) > limit {
		w.dropped++
		return len(text), nil
	}
	w.size += len(text)
	w.add(line{text: append([]byte(nil), text...)})
	return len(text), nil
}

// add is called with mu held.
func (w *Writer) add(l line) {
	w.waiting = append(w.waiting, l)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Flush waits until all that was written before has been passed on, or for so long.
func (w *Writer) Flush(atMost time.Duration) {
	done := make(chan struct{})
	w.mu.Lock()
	w.add(line{mark: done})
	w.mu.Unlock()
	select {
	case <-done:
	case <-time.After(atMost):
	}
}

func (w *Writer) run() {
	for range w.wake {
		w.mu.Lock()
		batch := w.waiting
		w.waiting = nil
		w.mu.Unlock()
		read := false
		for _, l := range batch {
			if l.mark != nil {
				w.report()
				close(l.mark)
				continue
			}
			read = w.pass(l.text)
		}
		if read {
			w.report()
		}
	}
}

// pass writes one line and reports whether that went well.
func (w *Writer) pass(text []byte) bool {
	_, err := w.to.Write(text)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.size -= len(text)
	if err != nil {
		w.dropped++
	}
	return err == nil
}

// report writes how many lines were lost, if any were.
func (w *Writer) report() {
	w.mu.Lock()
	dropped := w.dropped
	w.mu.Unlock()
	if dropped == 0 {
		return
	}
	if _, err := w.to.Write(w.lost(dropped)); err != nil {
		return
	}
	w.mu.Lock()
	w.dropped -= dropped
	w.mu.Unlock()
}

// TakeBrokenPipes makes a write to a broken pipe an error and nothing more. The signal is taken, not ignored: one
// that is ignored stays so in programs that are started (execve(2)), containers among them.
func TakeBrokenPipes() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }
