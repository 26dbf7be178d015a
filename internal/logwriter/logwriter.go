// Package logwriter writes a program's log and never blocks the program. If nobody reads the log,
// or the reader has ended, lines are dropped and counted. The count is written as soon as the log
// is read again.
//
// A program that uses it calls TakeBrokenPipes. Otherwise Go ends the program with SIGPIPE when it
// writes to a broken standard output or standard error.
package logwriter

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// limit is how many bytes of lines wait. Further lines are dropped.
const limit = 1 << 20

// Writer writes from a goroutine of its own, in order. Any goroutine may call its methods.
type Writer struct {
	to   io.Writer
	lost func(lines int) []byte
	wake chan struct{} // has room for one

	mu      sync.Mutex
	waiting []line
	size    int
	dropped int
}

// line is the text of one Write, or the mark that a Flush waits for.
type line struct {
	text []byte
	mark chan struct{}
}

// New returns a Writer that writes to to. lost makes the line that tells how many lines were
// dropped; nil means a line of plain text. The goroutine ends with the program.
func New(to io.Writer, lost func(lines int) []byte) *Writer {
	if lost == nil {
		lost = func(lines int) []byte { return fmt.Appendf(nil, "%d lines dropped: this was not read\n", lines) }
	}
	w := &Writer{to: to, lost: lost, wake: make(chan struct{}, 1)}
	go w.run()
	return w
}

// Write queues one line, or drops it if too many wait. It never blocks and never fails.
func (w *Writer) Write(text []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.size+len(text) > limit {
		w.drop()
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

// drop is called with mu held.
func (w *Writer) drop() {
	w.dropped++
	allDropped.Add(1)
}

// allDropped counts the lines that all Writers of this process dropped.
var allDropped atomic.Uint64

// Dropped is how many lines were dropped since the program began, by all its Writers.
func Dropped() uint64 { return allDropped.Load() }

// Flush waits until everything written before has been passed on, but at most this long.
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

// pass writes one line and reports whether that succeeded.
func (w *Writer) pass(text []byte) bool {
	_, err := w.to.Write(text)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.size -= len(text)
	if err != nil {
		w.drop()
	}
	return err == nil
}

// report writes how many lines were dropped, if any.
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

// TakeBrokenPipes makes a write to a broken pipe return an error. The signal is caught, not
// ignored: programs that are started, containers among them, inherit an ignored signal (execve(2)).
func TakeBrokenPipes() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }
