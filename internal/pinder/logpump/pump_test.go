package logpump

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
)

// logged is a Pump of one pipe.
type logged struct {
	*Pump
	cursor *Cursor // in memory that outlives the Pump, as in pinder
	in     int     // write end of the container's pipe
	out    *descriptor.Handle
	pipe   Private
	log    File
	path   string
}

func newLogged(t *testing.T) *logged {
	t.Helper()
	l := &logged{cursor: new(Cursor), path: filepath.Join(t.TempDir(), "log")}
	var fds [2]int
	err := unix.Pipe2(fds[:], unix.O_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	l.in = fds[1]
	if l.out, err = descriptor.Pollable(fds[0], "stdout"); err != nil {
		t.Fatal(err)
	}
	if l.pipe, err = NewPrivate(); err != nil {
		t.Fatal(err)
	}
	if l.log, _, err = Open("", l.path); err != nil {
		t.Fatal(err)
	}
	l.make()
	t.Cleanup(func() {
		l.Close()
		l.out.Close()
		descriptor.CloseAll([]int{l.in, l.pipe.Read, int(l.log)})
	})
	return l
}

// make is what a supervisor does with the descriptors.
func (l *logged) make() {
	l.Pump = New(l.cursor, func() string { return "container a" }, func() bool { return false })
	l.Prepare(l.pipe, l.log)
	l.Add(Stdout, Pipe{l.out})
}

func (l *logged) write(t *testing.T, s string) {
	t.Helper()
	if _, err := unix.Write(l.in, []byte(s)); err != nil {
		t.Fatal(err)
	}
}

// reborn is what a new supervisor makes of the same descriptors and the same memory. The old one is dead, and closes
// nothing.
func (l *logged) reborn() *logged {
	n := *l
	n.make()
	return &n
}

// plain is the log without times.
func (l *logged) plain(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(l.path)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for line := range strings.Lines(string(b)) {
		_, rest, ok := strings.Cut(line, " ")
		if !ok {
			t.Fatalf("record %q", line)
		}
		out.WriteString(rest)
	}
	return out.String()
}

// A write to the log is cut at every point where a supervisor can be killed;
// the next one leaves the same log each time.
func TestLogWriteMayBeCutAnywhere(t *testing.T) {
	const before, chunk, after = "before\n", "one\ntwo\nthr", "ee\n"
	const want = "stdout F before\nstdout F one\nstdout F two\nstdout P thr\nstdout F ee\n"
	intend := func(t *testing.T, l *logged) { l.cursor.intend(Stdout, l.logSize()) }
	move := func(t *testing.T, l *logged) {
		l.cursor.intend(Stdout, l.logSize())
		if _, err := splice(l.out.FD, l.pipe.Write, chunkSize); err != nil {
			t.Fatal(err)
		}
	}
	cuts := map[string]func(*testing.T, *logged){
		"before anything":      func(*testing.T, *logged) {},
		"after the intent":     intend,
		"after the move":       move,
		"after the commit":     func(t *testing.T, l *logged) { move(t, l); commit(t, l, 0) },
		"while it is consumed": func(t *testing.T, l *logged) { move(t, l); commit(t, l, 5) },
		"after it is consumed": func(t *testing.T, l *logged) { move(t, l); commit(t, l, len(chunk)) },
	}
	for torn := 1; torn < 120; torn += 7 {
		cuts[fmt.Sprintf("after %d bytes of the log", torn)] = func(t *testing.T, l *logged) {
			move(t, l)
			// What finish writes, as far as it came.
			buf := make([]byte, chunkSize)
			data, err := l.pipe.look(buf)
			if err != nil {
				t.Fatal(err)
			}
			w := recordWriter{
				sink: l.log, off: int64(l.cursor.offset), stream: 0,
				stamp: l.cursor.at(), state: l.cursor.current.load(),
			}
			end, _ := w.write(data)
			if err := w.sink.Truncate(min(end, int64(l.cursor.offset)+int64(torn))); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, cut := range cuts {
		t.Run(name, func(t *testing.T) {
			l := newLogged(t)
			l.write(t, before)
			l.Drain()
			l.write(t, chunk)
			cut(t, l)
			n := l.reborn()
			if err := n.Recover(); err != nil {
				t.Fatal(err)
			}
			n.Drain()
			n.write(t, after)
			n.Drain()
			if got := n.plain(t); got != want {
				t.Fatalf("log:\n%s", got)
			}
		})
	}
}

// commit does what finish does up to the commit, and consumes some bytes.
func commit(t *testing.T, l *logged, consumed int) {
	t.Helper()
	data, err := l.pipe.look(make([]byte, chunkSize))
	if err != nil {
		t.Fatal(err)
	}
	c := l.cursor
	w := recordWriter{sink: l.log, off: int64(c.offset), stamp: c.at(), state: c.current.load()}
	end, next := w.write(data)
	c.commit(end, next)
	if _, err := readFull(l.pipe.Read, make([]byte, consumed)); err != nil {
		t.Fatal(err)
	}
}

// fullDisk is a log that takes nothing more.
type fullDisk struct{ File }

func (fullDisk) WriteAt([]byte, int64) (int, error) { return 0, unix.ENOSPC }

func TestFailedWritesAreCountedAndMarkedOnce(t *testing.T) {
	l := newLogged(t)
	good := l.log
	l.Prepare(l.pipe, fullDisk{l.log})
	l.write(t, "lost 1\nlost 2\npart")
	l.Drain()
	if g := l.cursor.current.load(); g.lostBytes != 18 || g.lostRecords != 3 {
		t.Fatalf("lost: %+v", g)
	}
	n := l.reborn() // the count outlives a supervisor
	n.Prepare(l.pipe, good)
	n.write(t, "ial\nkept\n")
	n.Drain()
	want := "stderr F [pinder: 18 bytes in 3 records could not be logged here: no space left on device]\n" +
		"stdout F ial\nstdout F kept\n"
	if got := n.plain(t); got != want {
		t.Fatalf("log:\n%s", got)
	}
}

func TestLongLinesAreCutAtThePieceSize(t *testing.T) {
	l := newLogged(t)
	line := strings.Repeat("x", pieceSize)
	l.write(t, line+line+"y\n"+line+"\n")
	l.Drain()
	want := "stdout P " + line + "\nstdout P " + line + "\nstdout F y\nstdout P " + line + "\nstdout F \n"
	if got := l.plain(t); got != want {
		t.Fatalf("%d bytes of log, want %d", len(got), len(want))
	}
}
