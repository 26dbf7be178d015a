package session

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

func TestABacklogDeliversAllInOrder(t *testing.T) {
	b := newBacklog(&backlogs{}, func() {})
	var got bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.writeTo(&got)
	}()
	var want bytes.Buffer
	for i := 1; i < 2000; i++ {
		p := bytes.Repeat([]byte{byte(i)}, i)
		want.Write(p)
		if _, err := b.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	b.end()
	<-done
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("%d bytes, want %d", got.Len(), want.Len())
	}
}

func TestABacklogNeverWaitsForItsClient(t *testing.T) {
	b := newBacklog(&backlogs{}, func() {})
	r, w := io.Pipe() // nobody reads
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.writeTo(w)
	}()
	written := 0
	for {
		n, err := b.Write(make([]byte, 1<<20))
		written += n
		if err != nil {
			if !errors.Is(err, errLagging) || !errors.Is(err, errdefs.ErrResourceExhausted) || written != maxLag {
				t.Errorf("%v after %d bytes, want %d", err, written, maxLag)
			}
			break
		}
	}
	b.drop()
	r.Close()
	<-done
}

// A slow client gets all of a command's output, however late it reads.
func TestOutputIsDeliveredAfterTheCommandsEnd(t *testing.T) {
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close() // a child holds it
	text := strings.Repeat("x", 60<<10)
	if _, err := to.WriteString(text); err != nil {
		t.Fatal(err)
	}
	slow := &slowWriter{delay: drainTimeout + 200*time.Millisecond}
	outputs := relay{{from, slow}}
	defer outputs.close()
	begin := time.Now()
	outputs.start().finish()
	if slow.got != len(text) {
		t.Errorf("%d bytes were delivered, want %d", slow.got, len(text))
	}
	if took := time.Since(begin); took > 6*drainTimeout {
		t.Errorf("it took %s", took)
	}
}

type slowWriter struct {
	delay time.Duration
	got   int
}

func (w *slowWriter) Write(p []byte) (int, error) {
	time.Sleep(w.delay)
	w.got += len(p)
	return len(p), nil
}

// All clients together have a bound, and the one that is the furthest behind gives way, not the one that has just
// begun. What backlogs use in memory counts, not what was written: a byte at a time costs no more than its block.
func TestBacklogsAreBoundedTogether(t *testing.T) {
	var all backlogs
	cut := make([]bool, 10)
	var made []*backlog
	for i := range cut {
		made = append(made, newBacklog(&all, func() { cut[i] = true }))
	}
	for range 8 << 10 {
		if _, err := made[0].Write([]byte{'x'}); err != nil {
			t.Fatal(err)
		}
	}
	if all.all > 16<<10 {
		t.Errorf("8 KiB, one byte at a time, use %d bytes", all.all)
	}
	for i, b := range made[1:] {
		for range 15 - i {
			if _, err := b.Write(make([]byte, 1<<20)); err != nil && !errors.Is(err, errLaggingTogether) {
				t.Fatal(err)
			}
			if all.all > maxLagTogether {
				t.Fatalf("%d bytes are held", all.all)
			}
		}
	}
	if cut[0] || !cut[1] {
		t.Errorf("cut off: %v", cut)
	}
	if _, err := made[1].Write([]byte{'x'}); !errors.Is(err, errLaggingTogether) || !errors.Is(made[1].failure(), errdefs.ErrResourceExhausted) {
		t.Errorf("the one that was cut off: %v", err)
	}
	for _, b := range made {
		b.drop()
	}
	if all.all != 0 || len(all.held) != 0 {
		t.Errorf("%d bytes are held by %d in the end", all.all, len(all.held))
	}
}

// Outputs of commands share a bound; each gets what little it needs in any case.
func TestOutputsOfCommandsAreBoundedTogether(t *testing.T) {
	shared := budget{limit: 1 << 20}
	var made []*output
	got := 0
	for range 8 {
		from, to, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		o := collect(from, &shared)
		if _, err := to.Write(make([]byte, 300<<10)); err != nil {
			t.Fatal(err)
		}
		to.Close()
		data := o.bytes(time.Now().Add(time.Minute))
		from.Close()
		if len(data) < execOutputFree || (len(data) != 300<<10) != o.cut {
			t.Errorf("%d bytes, cut off: %t", len(data), o.cut)
		}
		got += cap(data)
		made = append(made, o)
	}
	if got > 1<<20+8*execOutputFree || got < 600<<10 {
		t.Errorf("%d bytes are kept", got)
	}
	for _, o := range made {
		o.release()
		o.release()
	}
	if shared.used.Load() != 0 {
		t.Errorf("%d bytes are in use in the end", shared.used.Load())
	}
}
