package logpump

import (
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pump does what run does with one event, and returns the time until when output is held back, if it is.
func (l *logged) pump(t *testing.T) (until time.Time) {
	t.Helper()
	for {
		_, err := l.cycle(l.streams[0], false)
		var held *heldError
		switch {
		case errors.As(err, &held):
			return held.until
		case errors.Is(err, unix.EAGAIN):
			return time.Time{}
		case err != nil:
			t.Fatal(err)
		}
	}
}

func TestALineWrittenInManyPiecesIsOneRecord(t *testing.T) {
	l := newLogged(t)
	for _, c := range "one line\ntwo" {
		l.write(t, string(c))
		l.pump(t)
	}
	if got := l.plain(t); got != "stdout F one line\n" {
		t.Fatalf("log: %q", got)
	}
	l.write(t, " is done\nthree\nfo")
	until := l.pump(t)
	if got := l.plain(t); got != "stdout F one line\nstdout F two is done\nstdout F three\n" {
		t.Fatalf("log: %q", got)
	}
	if left := time.Until(until); left <= 0 || left > holdFor {
		t.Fatalf("held back for %v", left)
	}
	// A prompt: nothing follows, and it comes all the same.
	for time.Now().Before(until) {
		l.pump(t)
	}
	if held := l.pump(t); !held.IsZero() {
		t.Fatalf("held back until %v, and then until %v", until, held)
	}
	if got := l.plain(t); !strings.HasSuffix(got, "stdout F three\nstdout P fo\n") {
		t.Fatalf("log: %q", got)
	}
	l.write(t, "ur\n")
	l.pump(t)
	if got := l.plain(t); !strings.HasSuffix(got, "stdout P fo\nstdout F ur\n") {
		t.Fatalf("log: %q", got)
	}
}

func TestALineWithoutAnEndComesInWholePieces(t *testing.T) {
	l := newLogged(t)
	began := time.Now()
	all := strings.Repeat("0123456789abcde", 3000) // 45,000 bytes
	for rest := all; rest != ""; {
		n := min(97, len(rest))
		l.write(t, rest[:n])
		rest = rest[n:]
		l.pump(t)
	}
	l.Drain()
	if got := strings.ReplaceAll(strings.ReplaceAll(l.plain(t), "stdout P ", ""), "\n", ""); got != all {
		t.Errorf("%d bytes of %d", len(got), len(all))
	}
	// Three, and one for each time that the machine was too slow for this loop.
	if records := strings.Count(l.plain(t), "\n"); records > 3+int(time.Since(began)/holdFor) {
		t.Errorf("%d records", records)
	}
}

func TestWhatIsHeldBackIsNotLostWithTheSupervisor(t *testing.T) {
	l := newLogged(t)
	l.write(t, "whole\nbegun")
	if l.pump(t).IsZero() {
		t.Fatal("nothing is held back")
	}
	n := l.reborn()
	if err := n.Recover(); err != nil {
		t.Fatal(err)
	}
	n.write(t, " and ended\n")
	n.pump(t)
	if got := n.plain(t); got != "stdout F whole\nstdout F begun and ended\n" {
		t.Fatalf("log: %q", got)
	}
}

func TestNothingIsHeldBackOfAClosedStreamOrAtTheEnd(t *testing.T) {
	l := newLogged(t)
	l.write(t, "last words")
	l.pump(t)
	_ = unix.Close(l.in)
	l.in = -1
	if _, err := l.cycle(l.streams[0], false); err != nil {
		t.Fatal(err)
	}
	if got := l.plain(t); got != "stdout P last words\n" {
		t.Fatalf("log: %q", got)
	}
	other := newLogged(t)
	other.write(t, "at the exit")
	other.Drain()
	if got := other.plain(t); got != "stdout P at the exit\n" {
		t.Fatalf("log: %q", got)
	}
}
