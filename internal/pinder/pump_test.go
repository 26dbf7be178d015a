package pinder

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
)

// logged is a process with one stream, without a supervisor or a runtime.
type logged struct {
	*process
	in   int // write end of the container's pipe
	path string
}

func newLogged(t *testing.T) *logged {
	t.Helper()
	st, err := newState()
	if err != nil {
		t.Fatal(err)
	}
	s := &supervisor{dir: t.TempDir()}
	p := s.wrap("c/a", st, meta{ID: "a", Phase: wire.PhaseRunning})
	if err := p.privatePipe(); err != nil {
		t.Fatal(err)
	}
	child, ours, err := pipes(false, nil)
	if err != nil {
		t.Fatal(err)
	}
	l := &logged{process: p, in: child.stdout, path: filepath.Join(t.TempDir(), "log")}
	_ = unix.Close(child.stderr)
	_ = unix.Close(ours[kindStderr])
	h, err := descriptor.Pollable(ours[kindStdout], kindStdout)
	if err != nil {
		t.Fatal(err)
	}
	p.set(kindStdout, h)
	fd, _, err := openLog("", l.path)
	if err != nil {
		t.Fatal(err)
	}
	p.set(kindLog, &descriptor.Handle{FD: fd})
	p.streams = p.newStreams()
	t.Cleanup(func() {
		_ = unix.Close(l.in)
		for kind, h := range l.handles {
			if kind != kindState {
				h.Close()
			}
		}
		l.state.close()
	})
	return l
}

func (l *logged) write(t *testing.T, s string) {
	t.Helper()
	if _, err := unix.Write(l.in, []byte(s)); err != nil {
		t.Fatal(err)
	}
}

// reborn is what a new supervisor makes of the descriptors.
func (l *logged) reborn(t *testing.T) *logged {
	t.Helper()
	kinds, fds, err := l.duplicates()
	if err != nil {
		t.Fatal(err)
	}
	handles, err := makeHandles(kinds, fds)
	if err != nil {
		t.Fatal(err)
	}
	st, err := openState(handles[kindState].FD)
	if err != nil {
		t.Fatal(err)
	}
	p := l.sup.wrap("c/a", st, l.meta)
	for kind, h := range handles {
		p.handles[kind] = h
	}
	p.streams = p.newStreams()
	n := &logged{process: p, in: l.in, path: l.path}
	t.Cleanup(func() {
		for kind, h := range handles {
			if kind != kindState {
				h.Close()
			}
		}
		st.close()
	})
	return n
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
	intend := func(t *testing.T, l *logged) { l.intend(0) }
	move := func(t *testing.T, l *logged) {
		l.intend(0)
		if _, err := splice(l.get(kindStdout).FD, l.get(kindPrivateW).FD, chunkSize); err != nil {
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
			// What settle writes, as far as it came.
			buf := make([]byte, chunkSize)
			data, err := l.look(buf)
			if err != nil {
				t.Fatal(err)
			}
			w := recordWriter{
				fd: l.get(kindLog).FD, off: int64(l.state.cur.offset), stream: 0,
				stamp: stampOf(l.state.cur), state: l.state.cur.current.load(),
			}
			end, _ := w.write(data)
			if err := unix.Ftruncate(w.fd, min(end, int64(l.state.cur.offset)+int64(torn))); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, cut := range cuts {
		t.Run(name, func(t *testing.T) {
			l := newLogged(t)
			l.write(t, before)
			l.drain()
			l.write(t, chunk)
			cut(t, l)
			n := l.reborn(t)
			if err := n.recover(); err != nil {
				t.Fatal(err)
			}
			n.drain()
			n.write(t, after)
			n.drain()
			if got := n.plain(t); got != want {
				t.Fatalf("log:\n%s", got)
			}
		})
	}
}

// commit does what settle does up to the commit, and consumes some bytes.
func commit(t *testing.T, l *logged, consumed int) {
	t.Helper()
	data, err := l.look(make([]byte, chunkSize))
	if err != nil {
		t.Fatal(err)
	}
	c := l.state.cur
	w := recordWriter{fd: l.get(kindLog).FD, off: int64(c.offset), stamp: stampOf(c), state: c.current.load()}
	end, next := w.write(data)
	c.end = uint64(end)
	c.next.store(next)
	c.phase = phaseCommit
	if _, err := readFull(l.get(kindPrivateR).FD, make([]byte, consumed)); err != nil {
		t.Fatal(err)
	}
}

func TestFailedWritesAreCountedAndMarkedOnce(t *testing.T) {
	l := newLogged(t)
	full, err := unix.Open("/dev/full", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	good := l.get(kindLog).FD
	l.handles[kindLog] = &descriptor.Handle{FD: full}
	l.write(t, "lost 1\nlost 2\npart")
	l.drain()
	if g := l.state.cur.current.load(); g.lostBytes != 18 || g.lostRecords != 3 {
		t.Fatalf("lost: %+v", g)
	}
	n := l.reborn(t) // the count outlives a supervisor
	n.set(kindLog, &descriptor.Handle{FD: good})
	delete(l.handles, kindLog)
	_ = unix.Close(full)
	n.write(t, "ial\nkept\n")
	n.drain()
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
	l.drain()
	want := "stdout P " + line + "\nstdout P " + line + "\nstdout F y\nstdout P " + line + "\nstdout F \n"
	if got := l.plain(t); got != want {
		t.Fatalf("%d bytes of log, want %d", len(got), len(want))
	}
}

func TestStateOutlivesItsWriter(t *testing.T) {
	l := newLogged(t)
	for i := range 5 {
		if err := l.update(func(m *meta) { m.PID = i; m.LogPath = strings.Repeat("p", i*100) }); err != nil {
			t.Fatal(err)
		}
		m, err := l.reborn(t).state.loadMeta()
		if err != nil || m.PID != i || len(m.LogPath) != i*100 {
			t.Fatalf("round %d: %+v, %v", i, m, err)
		}
	}
	fd, err := unix.MemfdCreate("bad", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(fd, 1<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := openState(fd); err == nil || !strings.Contains(err.Error(), "layout") {
		t.Fatalf("a strange memfd: %v", err)
	}
}
