package logline

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// clock is a log whose time the test sets.
type clock struct {
	at   time.Time
	text bytes.Buffer
	*repeats
	log *slog.Logger
}

func newClock() *clock {
	c := &clock{at: time.Unix(1000, 0)}
	c.repeats = newRepeats(func() time.Time { return c.at })
	c.log = slog.New(&repeating{next: slog.NewTextHandler(&c.text, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}), repeats: c.repeats})
	return c
}

// written are the lines since the last call.
func (c *clock) written() []string {
	defer c.text.Reset()
	return strings.Split(strings.TrimSuffix(c.text.String(), "\n"), "\n")
}

func TestALineThatRepeatsIsCountedAtGapsThatGrow(t *testing.T) {
	c := newClock()
	var at []string
	for second := 0; second < 3600; second += 2 { // a kubelet tries every two seconds
		c.log.Error("request failed", "pod", "web", "took", time.Duration(second), "error", fmt.Sprintf("sandbox %032x: after %dms: no", second, second))
		if line := c.written()[0]; line != "" {
			_, count, _ := strings.Cut(line, "repeated=")
			at = append(at, fmt.Sprintf("%d:%s", second, count))
		}
		c.at = c.at.Add(2 * time.Second)
	}
	if got := strings.Join(at, " "); got != "0: 30:14 90:29 210:59 450:119 930:239 1890:479" {
		t.Error(got)
	}
}

func TestTheLastOfManyIsWrittenWhenItStopsAndTheNextOneIsNew(t *testing.T) {
	c := newClock()
	for range 5 {
		c.log.Warn("again", "pod", "web")
		c.at = c.at.Add(time.Second)
	}
	if got := c.written(); len(got) != 1 {
		t.Errorf("%q", got)
	}
	c.sweep()
	if got := c.written(); got[0] != "" {
		t.Errorf("too early: %q", got)
	}
	c.at = c.at.Add(quiet)
	c.sweep()
	if got := c.written(); len(got) != 1 || got[0] != `level=WARN msg=again pod=web repeated=3` {
		t.Errorf("%q", got)
	}
	if len(c.known) != 0 {
		t.Errorf("%d are kept", len(c.known))
	}
	c.log.Warn("again", "pod", "web")
	if got := c.written(); got[0] != `level=WARN msg=again pod=web` {
		t.Errorf("%q", got)
	}
}

func TestNoLineHidesAnother(t *testing.T) {
	c := newClock()
	say := func(args ...any) {
		c.log.Error("failed", args...)
		if got := c.written(); got[0] == "" {
			t.Errorf("%v is not in the log", args)
		}
	}
	say("pod", "web", "error", "no")
	say("pod", "db", "error", "no")
	say("pod", "web", "error", "another cause")
	say("pod", "web", "error", "exit status 1")
	say("pod", "web", "error", "exit status 2")
	say("namespace", "a", "pod", "b")
	say("namespace", "a\x00pod\x00b")
	say("pod_id", strings.Repeat("a", 64), "error", "no")
	say("pod_id", strings.Repeat("b", 64), "error", "no")
	c.log.With("image", "a").Error("failed")
	c.log.With("image", "b").Error("failed")
	c.log.Warn("failed")
	for range 3 {
		c.log.Info("a life") // never left out
	}
	if got := c.written(); len(got) != 6 {
		t.Errorf("%q", got)
	}
}

func TestTheMemoryForRepeatsIsBounded(t *testing.T) {
	c := newClock()
	for i := range 3 * maxRepeats {
		for range 2 {
			c.log.Warn("x", "pod", i)
		}
		c.at = c.at.Add(time.Millisecond)
	}
	if len(c.known) != maxRepeats {
		t.Errorf("%d lines are watched", len(c.known))
	}
	c.flush()
	if got := c.written(); len(got) != 6*maxRepeats {
		t.Errorf("%d lines were written, of %d", len(got), 6*maxRepeats)
	}
}
