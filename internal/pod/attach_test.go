package pod

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
	b := newBacklog()
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
	b := newBacklog()
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
