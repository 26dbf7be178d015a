package logwriter

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func TestLinesArePassedOnWholeAndInOrder(t *testing.T) {
	r, to := pipe(t)
	w := New(to, nil)
	var writers sync.WaitGroup
	for i := range 4 {
		writers.Go(func() {
			for j := range 200 {
				fmt.Fprintf(w, "%d %d\n", i, j)
			}
		})
	}
	next := map[string]int{}
	lines := bufio.NewScanner(r)
	for range 4 * 200 {
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		who, number, _ := strings.Cut(lines.Text(), " ")
		if n, err := strconv.Atoi(number); err != nil || n != next[who] {
			t.Fatalf("line %q, want number %d", lines.Text(), next[who])
		}
		next[who]++
	}
	writers.Wait()
}

func TestAReaderThatDoesNotReadIsWaitedForByNothingAndToldWhatItMissed(t *testing.T) {
	r, to := pipe(t)
	w := New(to, nil)
	text := bytes.Repeat([]byte("x"), 1023)
	text = append(text, '\n')
	const written = 8 << 10 // 8 MiB, much more than can wait
	began := time.Now()
	for range written {
		if n, err := w.Write(text); n != len(text) || err != nil {
			t.Fatal(n, err)
		}
	}
	w.Flush(10 * time.Millisecond)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	read, missed := 0, 0
	lines := bufio.NewScanner(r)
	for read+missed < written && lines.Scan() {
		if _, err := fmt.Sscanf(lines.Text(), "%d lines dropped", &missed); err != nil {
			read++
		}
	}
	if read+missed != written || read < 1000 || missed == 0 {
		t.Errorf("%d lines came, %d were said to be missing, of %d", read, missed, written)
	}
	fmt.Fprintln(w, "again")
	if !lines.Scan() || lines.Text() != "again" {
		t.Errorf("after that: %q", lines.Text())
	}
}

func TestLinesWithoutAReaderAreCounted(t *testing.T) {
	TakeBrokenPipes()
	broken := &flaky{fails: 3}
	w := New(broken, nil)
	for i := range 4 {
		fmt.Fprintln(w, i)
	}
	w.Flush(10 * time.Second)
	if got := broken.text.String(); got != "3\n3 lines dropped: this was not read\n" {
		t.Errorf("got %q", got)
	}
	r, to := pipe(t)
	r.Close()
	w = New(to, nil)
	fmt.Fprintln(w, "nothing reads this")
	w.Flush(10 * time.Second)
}

// flaky fails some times, then works.
type flaky struct {
	fails int
	text  bytes.Buffer
}

func (f *flaky) Write(p []byte) (int, error) {
	if f.fails > 0 {
		f.fails--
		return 0, os.ErrClosed
	}
	return f.text.Write(p)
}
