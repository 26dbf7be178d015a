package pair

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

func TestLoudContainerIsLoggedWholeAndInOrder(t *testing.T) {
	n := newNode(t)
	began := time.Now()
	n.run("a", "seq 1 3000000")
	n.exit("a")
	out, _ := n.logged("a")
	if got := checkNumbers(t, out); got != 3000000 {
		t.Fatalf("%d lines", got)
	}
	t.Logf("%d MB of output in %v", len(out)>>20, time.Since(began).Round(time.Millisecond))
}

func TestLoudContainerTakesNothingFromOthers(t *testing.T) {
	n := newNode(t)
	n.run("loud", "yes >&2")
	for i := range 5 {
		id := fmt.Sprintf("c%d", i)
		began := time.Now()
		n.run(id, "echo quick")
		n.exit(id)
		if out, _ := n.logged(id); out != "quick\n" {
			t.Fatalf("logged %q", out)
		}
		t.Logf("beside a loud one, a container's whole life took %v", time.Since(began).Round(time.Millisecond))
	}
	if err := n.client.Signal(n.ctx(), "loud", unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.exit("loud")
}

func TestLongLinesComeInPieces(t *testing.T) {
	n := newNode(t)
	n.run("a", "yes 0123456789 | head -c 100001 | while read x; do printf %s $x; done; echo end; printf no-newline")
	n.exit("a")
	out, _ := n.logged("a")
	first, rest, _ := strings.Cut(out, "\n")
	if want := strings.Repeat("0123456789", 9090); !strings.HasPrefix(first, want) || !strings.HasSuffix(first, "end") || rest != "no-newline" {
		t.Fatalf("%d bytes, then %q", len(first), rest)
	}
}

func TestOutputAfterTheExitIsLogged(t *testing.T) {
	n := newNode(t)
	n.run("a", "(sleep 1; echo late) & echo early", withHostPID)
	n.exit("a")
	if out, _ := n.logged("a"); out != "early\n" {
		t.Fatalf("at exit: %q", out)
	}
	until(t, "the grandchild's output is logged", func() bool { out, _ := n.logged("a"); return out == "early\nlate\n" })
}

func TestReopenCutsBetweenRecords(t *testing.T) {
	n := newNode(t)
	n.run("a", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); echo $i; done")
	path := filepath.Join(n.dir, "a.log")
	var all []byte
	for i := range 5 {
		size := n.logSize("a")
		until(t, "the log grows", func() bool { return n.logSize("a") > size || n.allExited(1) })
		rotated := fmt.Sprintf("%s.%d", path, i)
		if err := os.Rename(path, rotated); err != nil {
			t.Fatal(err)
		}
		if err := n.client.ReopenLog(n.ctx(), "a"); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(rotated)
		if err != nil {
			t.Fatal(err)
		}
		parseLog(t, b) // whole records
		all = append(all, b...)
	}
	n.exit("a")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	out, _ := parseLog(t, append(all, b...))
	if got := checkNumbers(t, out); got != 200000 {
		t.Fatalf("%d lines", got)
	}
}

func TestFailedReopenKeepsTheOldFile(t *testing.T) {
	n := newNode(t)
	logs := filepath.Join(n.dir, "logs")
	if err := os.Mkdir(logs, 0o755); err != nil {
		t.Fatal(err)
	}
	n.create("a", "echo one; sleep 0.5; echo two", func(_ map[string]any, r *wire.Create) {
		r.LogPath = filepath.Join(logs, "l")
	})
	if err := os.Rename(logs, logs+".moved"); err != nil {
		t.Fatal(err)
	}
	if err := n.client.ReopenLog(n.ctx(), "a"); err == nil || !strings.Contains(err.Error(), "reopen log: container a: open log "+logs) {
		t.Fatalf("reopen: %v", err)
	}
	n.start("a")
	n.exit("a")
	b, err := os.ReadFile(logs + ".moved/l")
	if err != nil {
		t.Fatal(err)
	}
	if out, _ := parseLog(t, b); out != "one\ntwo\n" {
		t.Fatalf("logged %q", out)
	}
}

// A full disk stops no container, and the log says later how much is missing.
func TestFullDiskIsAMarkedGap(t *testing.T) {
	n := newNode(t)
	disk := filepath.Join(n.dir, "disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(disk, unix.MNT_DETACH) }()
	log := filepath.Join(disk, "log")
	const lines = 100000
	n.run("a", fmt.Sprintf("seq 1 %d; head -c 1 >/dev/null </dev/zero; while [ ! -e /proc/1/root/tmp/go ]; do sleep 0.05; done; echo after", lines),
		func(_ map[string]any, r *wire.Create) { r.LogPath = log })
	until(t, "output is lost", func() bool {
		list, err := n.client.Containers(n.ctx())
		return err == nil && len(list) == 1 && list[0].LostBytes > 0
	})
	// Room again, before the container writes its last line.
	if err := unix.Mount("tmpfs", disk, "tmpfs", unix.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	e, err := n.client.Exec(n.ctx(), wire.Exec{ID: "a", ExecID: "go", Process: mustJSON(t, process("/bin/sh", "-c", ": >/tmp/go"))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Wait(n.ctx()); err != nil {
		t.Fatal(err)
	}
	n.exit("a")
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	out, stderr := parseLog(t, b)
	var bytesLost, records int
	if _, err := fmt.Sscanf(stderr, "[pinder: %d bytes in %d records could not be logged here: no space left on device]\n", &bytesLost, &records); err != nil {
		t.Fatalf("marker %q: %v", stderr, err)
	}
	var want bytes.Buffer
	for i := range lines {
		_, _ = fmt.Fprintln(&want, i+1)
	}
	want.WriteString("after\n")
	if len(out)+bytesLost != want.Len() || !strings.HasSuffix(out, "after\n") {
		t.Fatalf("%d bytes logged and %d marked as lost, of %d; ends with %q", len(out), bytesLost, want.Len(), out[len(out)-20:])
	}
	t.Logf("marker: %s", strings.TrimSpace(stderr))
}

func TestLogThatCanNeverBeWrittenStopsNothing(t *testing.T) {
	n := newNode(t)
	disk := filepath.Join(n.dir, "disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=4k"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(disk, unix.MNT_DETACH) }()
	if err := os.WriteFile(filepath.Join(disk, "full"), make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	n.run("a", "seq 1 500000; exit 6", func(_ map[string]any, r *wire.Create) { r.LogPath = filepath.Join(disk, "log") })
	if e := n.exit("a"); e.Code != 6 {
		t.Fatalf("exit: %+v", e)
	}
	n.run("b", "seq 1 500000; exit 6", func(_ map[string]any, r *wire.Create) { r.LogPath = "" })
	if e := n.exit("b"); e.Code != 6 {
		t.Fatalf("exit: %+v", e)
	}
}

// TestManySmallWritesAreFewRecords runs programs that write lines byte by byte, with and without a terminal.
func TestManySmallWritesAreFewRecords(t *testing.T) {
	n := newNode(t)
	const script = `i=0; while [ $i -lt 400 ]; do i=$((i+1)); printf x; done; echo; printf 'prompt> '; sleep 1000`
	n.run("pipe", script)
	n.run("tty", script, withTTY)
	for _, id := range []string{"pipe", "tty"} {
		until(t, id+": the prompt is in the log", func() bool { out, _ := n.logged(id); return strings.HasSuffix(out, "prompt> ") })
		b, err := os.ReadFile(filepath.Join(n.dir, id+".log"))
		if err != nil {
			t.Fatal(err)
		}
		if records := bytes.Count(b, []byte("\n")); records > 20 {
			t.Errorf("%s: %d records for 402 writes", id, records)
		}
		if out, _ := n.logged(id); strings.ReplaceAll(out, "\r", "") != strings.Repeat("x", 400)+"\nprompt> " {
			t.Errorf("%s: %q", id, out)
		}
	}
}

// TestOutputHeldBackSurvivesTheSupervisor kills supervisors while lines are being written piece by piece.
func TestOutputHeldBackSurvivesTheSupervisor(t *testing.T) {
	n := newNode(t)
	const lines = 3000
	n.run("a", fmt.Sprintf("i=0; while [ $i -lt %d ]; do i=$((i+1)); printf $i; echo; done", lines))
	_, inner := n.pids()
	for range 4 {
		size := n.logSize("a")
		until(t, "the log grows", func() bool { return n.logSize("a") > size || n.allExited(1) })
		n.kill(inner)
		_, inner = n.newInner(inner)
	}
	n.exit("a")
	n.checkLog("a", lines)
}
