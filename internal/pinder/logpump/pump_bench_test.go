package logpump

import (
	"bytes"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
)

// BenchmarkLines logs full pipes of lines of 100 bytes.
func BenchmarkLines(b *testing.B) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		b.Fatal(err)
	}
	defer descriptor.CloseAll(fds[1:])
	out, err := descriptor.Pollable(fds[0], "stdout")
	if err != nil {
		b.Fatal(err)
	}
	defer out.Close()
	private, err := NewPrivate()
	if err != nil {
		b.Fatal(err)
	}
	defer descriptor.CloseAll([]int{private.Read})
	log, _, err := Open("", filepath.Join(b.TempDir(), "log"))
	if err != nil {
		b.Fatal(err)
	}
	defer descriptor.CloseAll([]int{int(log)})
	p := New(new(Cursor), func() string { return "container a" }, func() bool { return false })
	p.Prepare(private, log)
	p.Add(Stdout, Pipe{out})
	defer p.Close()
	lines := bytes.Repeat(append(bytes.Repeat([]byte{'x'}, 99), '\n'), 650)
	b.SetBytes(int64(len(lines)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := unix.Write(fds[1], lines); err != nil {
			b.Fatal(err)
		}
		for left := len(lines); left > 0; {
			n, err := p.cycle(p.streams[0], false)
			if err != nil {
				b.Fatal(err)
			}
			left -= n
		}
		if log.Size() > 64<<20 {
			_ = log.Truncate(0)
		}
	}
}
