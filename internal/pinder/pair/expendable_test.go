package pair

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/client"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// counter logs numbered lines at full speed, with a few long ones' worth of
// bytes in each write, and ends with a code of its own.
func counter(lines, code int) string {
	return fmt.Sprintf("seq 1 %d; exit %d", lines, code)
}

// slowly is counter for about as many seconds.
func slowly(seconds, code int) string {
	return fmt.Sprintf("i=0; while [ $i -lt %d ]; do i=$((i+1)); echo $i; done; exit %d", seconds*100000, code)
}

func (n *node) checkCounter(id string, lines, code int) {
	n.t.Helper()
	if e := n.exit(id); e.Code != code || e.Unknown || e.Signal != 0 {
		n.t.Fatalf("exit of %s: %+v", id, e)
	}
	n.checkLog(id, lines)
}

// checkLog is called after the exit: output that was in the pipe then is in the log already.
func (n *node) checkLog(id string, lines int) {
	n.t.Helper()
	out, _ := n.logged(id)
	if got := checkNumbers(n.t, out); got != lines {
		n.t.Fatalf("%s logged %d lines of %d", id, got, lines)
	}
}

// newInner waits for a supervisor other than old.
func (n *node) newInner(old int) (reaper, inner int) {
	n.t.Helper()
	until(n.t, "another supervisor answers", func() bool {
		reaper, inner = n.pids()
		return inner != old
	})
	return reaper, inner
}

func TestSupervisorKilledWhileContainersLog(t *testing.T) {
	n := newNode(t)
	const containers, lines = 4, 1500000
	for i := range containers {
		var tweaks []tweak
		if i == 3 {
			tweaks = append(tweaks, withUserns)
		}
		n.create(fmt.Sprintf("c%d", i), counter(lines, 40+i), tweaks...)
	}
	for i := range containers {
		n.start(fmt.Sprintf("c%d", i))
	}
	reaper, inner := n.pids()
	kills := 0
	for ; kills < 12; kills++ {
		grown := n.logSize("c0") + n.logSize("c1")
		until(t, "logs grow", func() bool {
			return n.logSize("c0")+n.logSize("c1") > grown || n.allExited(containers)
		})
		if n.allExited(containers) {
			break
		}
		n.kill(inner)
		var now int
		if now, inner = n.newInner(inner); now != reaper {
			t.Fatalf("reaper was %d, is %d", reaper, now)
		}
	}
	for i := range containers {
		n.checkCounter(fmt.Sprintf("c%d", i), lines, 40+i)
	}
	t.Logf("%d kills", kills)
	if kills < 3 {
		t.Errorf("only %d kills while the containers logged", kills)
	}
}

func (n *node) allExited(containers int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.exits) >= containers
}

func TestContainerThatEndsWhileNoSupervisorLives(t *testing.T) {
	n := newNode(t)
	// A stopped supervisor is as good as none, for as long as we like.
	n.create("a", "echo bye; exit 33")
	n.run("b", "read x </proc/1/root/tmp/never 2>/dev/null; sleep 1000")
	n.start("a")
	n.exit("a")
	_, inner := n.pids()
	n.stop(inner)
	list := n.initOf("b")
	if err := unix.Kill(list, unix.SIGTERM); err != nil { // pid 1 ignores it
		t.Fatal(err)
	}
	n.kill(list)
	until(t, "the container is a zombie", func() bool { return procState(list) == "Z" })
	n.kill(inner)
	if e := n.exit("b"); e.Signal != 9 || e.Unknown {
		t.Fatalf("exit: %+v", e)
	}
}

func (n *node) initOf(id string) int {
	n.t.Helper()
	b, err := os.ReadFile(filepath.Join(n.dir, "runc", id, "state.json"))
	if err != nil {
		n.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), `"init_process_pid":`)
	pid, err := strconv.Atoi(rest[:strings.IndexAny(rest, ",}")])
	if err != nil {
		n.t.Fatal(err)
	}
	return pid
}

func procState(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return rest[:1]
}

func TestReaperKilledWhileContainersLog(t *testing.T) {
	n := newNode(t)
	const lines = 1500000
	n.create("a", counter(lines, 21))
	n.create("b", counter(lines, 22))
	n.run("c", "sleep 1000")
	n.start("a")
	n.start("b")
	reaper, inner := n.pids()
	for range 3 {
		size := n.logSize("a")
		until(t, "the log grows", func() bool { return n.logSize("a") > size || n.allExited(2) })
		n.kill(reaper)
		was := inner
		reaper, inner = n.newInner(inner)
		if reaper != was {
			t.Errorf("the supervisor %d should have become the reaper, which is %d", was, reaper)
		}
	}
	n.checkOrphan("a", lines, 21)
	n.checkOrphan("b", lines, 22)
	if err := n.client.Signal(n.ctx(), "c", unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := n.client.Signal(n.ctx(), "c", unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.checkKilledOrphan("c")
}

func TestBothHalvesKilledWhileContainersLog(t *testing.T) {
	n := newNode(t)
	const lines = 2000000
	n.create("a", counter(lines, 17))
	n.run("b", "sleep 1000", withTTY)
	n.start("a")
	for range 3 {
		size := n.logSize("a")
		until(t, "the log grows", func() bool { return n.logSize("a") > size || n.allExited(1) })
		reaper, inner := n.pids()
		// The reaper first, and at once the supervisor: it must not take over.
		n.kill(reaper)
		n.kill(inner)
		if now, _ := n.newInner(inner); now == reaper {
			t.Fatal("the reaper lives")
		}
	}
	n.checkOrphan("a", lines, 17)
	if err := n.client.Delete(n.ctx(), wire.Delete{ID: "b"}); err != nil {
		t.Fatal(err)
	}
	n.checkKilledOrphan("b")
}

// TestReaperKilledDuringACreation: the request is made again by the client, whatever moment it was.
func TestReaperKilledDuringACreation(t *testing.T) {
	n := newNode(t)
	reaper, inner := n.pids()
	for i := range 20 {
		request := n.request(fmt.Sprintf("c%d", i), "true")
		created := make(chan error, 1)
		go func() {
			_, err := n.client.Create(n.ctx(), request)
			created <- err
		}()
		time.Sleep(time.Duration(i) * 3 * time.Millisecond) // each time another moment of it
		n.kill(reaper)
		if err := <-created; err != nil {
			t.Fatalf("creation %d: %v", i, err)
		}
		reaper, inner = n.newInner(inner)
	}
	for i := range 20 {
		n.start(fmt.Sprintf("c%d", i))
		n.exit(fmt.Sprintf("c%d", i))
	}
}

func TestDaemonComesBackToALivingPinder(t *testing.T) {
	n := newNode(t)
	const lines = 1500000
	n.run("a", "sleep 0.3; "+counter(lines, 8))
	n.run("b", "sleep 0.2; exit 12")
	n.run("c", "cat", withTTY)
	reaper, inner := n.pids()
	_ = n.client.Close()
	until(t, "b ends without a daemon", func() bool {
		_, found, err := client.ReadExit(filepath.Join(n.dir, "b.exit"))
		return err == nil && found
	})
	n.connect()
	if r, i := n.pids(); r != reaper || i != inner {
		t.Fatalf("pinder was %d/%d, is %d/%d", reaper, inner, r, i)
	}
	if e := n.exit("b"); e.Code != 12 {
		t.Fatalf("exit: %+v", e)
	}
	if held := n.client.Held(); held != 3 {
		t.Fatalf("duplicates of %d objects", held)
	}
	// The new daemon's duplicates are good: pinder is lost as a whole.
	n.kill(reaper)
	n.kill(inner)
	n.newInner(inner)
	n.checkOrphan("a", lines, 8)
}

func TestDaemonAndPinderLostTogether(t *testing.T) {
	n := newNode(t)
	c := n.run("a", "while true; do sleep 0.1; done")
	reaper, inner := n.pids()
	_ = n.client.Close()
	// Stopped, the one cannot take the other's place between the two deaths.
	n.stop(inner)
	n.kill(reaper)
	n.kill(inner)
	waitGone(reaper, 5*time.Second)
	waitGone(inner, 5*time.Second)
	n.connect()
	r := adoption(n.request("a", ""))
	r.PID, r.Start = c.PID, c.Start+1
	if _, err := n.client.Adopt(n.ctx(), r); err == nil || !strings.Contains(err.Error(), "is another one by now") {
		t.Fatalf("adopt with the wrong start time: %v", err)
	}
	r.Start = c.Start
	if got, err := n.client.Adopt(n.ctx(), r); err != nil || got.PID != c.PID {
		t.Fatalf("adopt: %+v, %v", got, err)
	}
	list, err := n.client.Containers(n.ctx())
	if err != nil || len(list) != 1 || !list[0].LogLost || !list[0].Running() {
		t.Fatalf("containers: %+v, %v", list, err)
	}
	if err := n.client.Signal(n.ctx(), "a", unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	e := n.exit("a")
	if !e.Unknown && e.Signal != 9 {
		t.Fatalf("exit: %+v", e)
	}
	t.Logf("exit code of an adopted container is known: %v", !e.Unknown)
}

func TestUpgradeInPlaceWhileContainersLog(t *testing.T) {
	n := newNode(t)
	const containers, lines = 10, 300000
	for i := range containers {
		n.create(fmt.Sprintf("c%d", i), counter(lines, 60+i))
	}
	for i := range containers {
		n.start(fmt.Sprintf("c%d", i))
	}
	reaper, inner := n.pids()
	other := filepath.Join(n.dir, "pinder-next")
	b, err := os.ReadFile(pinderBinary)
	if err == nil {
		err = os.WriteFile(other, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := n.client.Upgrade(n.ctx(), other); err != nil {
			t.Fatal(err)
		}
		if r, i := n.pids(); r != reaper || i != inner {
			t.Fatalf("processes were %d/%d, are %d/%d", reaper, inner, r, i)
		}
		for _, pid := range []int{reaper, inner} {
			exe, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
			next, errNext := os.Stat(other)
			if err != nil || errNext != nil || !os.SameFile(exe, next) {
				t.Fatalf("process %d runs another program: %v, %v", pid, err, errNext)
			}
		}
	}
	for i := range containers {
		n.checkCounter(fmt.Sprintf("c%d", i), lines, 60+i)
	}
	if err := n.client.Upgrade(n.ctx(), "/bin/false"); err == nil || !strings.Contains(err.Error(), "\"version\" fails") {
		t.Fatalf("upgrade to a binary that fails: %v", err)
	}
}

func TestTerminalAndExecSurviveTheSupervisor(t *testing.T) {
	n := newNode(t)
	n.run("a", slowly(2, 3), withTTY)
	n.run("b", "sleep 1000")
	e, err := n.client.Exec(n.ctx(), wire.Exec{
		ID: "b", ExecID: "e", Stdin: true, Process: mustJSON(t, process("/bin/sh", "-c", "cat; exit 19")),
	})
	if err != nil {
		t.Fatal(err)
	}
	_, inner := n.pids()
	for range 5 {
		size := n.logSize("a")
		until(t, "the log grows", func() bool { return n.logSize("a") > size || n.allExited(1) })
		n.kill(inner)
		_, inner = n.newInner(inner)
	}
	if _, err := e.Stdin.WriteString("still here\n"); err != nil {
		t.Fatal(err)
	}
	_ = e.Stdin.Close()
	if out := readAll(t, e.Stdout); out != "still here\n" {
		t.Fatalf("exec says %q", out)
	}
	if x, err := e.Wait(n.ctx()); err != nil || x.Code != 19 || x.Unknown {
		t.Fatalf("exit of exec: %+v, %v", x, err)
	}
	if e := n.exit("a"); e.Code != 3 || e.Unknown {
		t.Fatalf("exit: %+v", e)
	}
	out, _ := n.logged("a")
	if got := checkNumbers(t, strings.ReplaceAll(out, "\r\n", "\n")); got != 200000 {
		t.Fatalf("%d lines", got)
	}
}

// Every operation is under way when the supervisor dies; its repeat by the
// client succeeds.
func TestOperationsSurviveTheSupervisor(t *testing.T) {
	n := newNode(t)
	for i := range 12 {
		id := fmt.Sprintf("c%d", i)
		r := n.request(id, fmt.Sprintf("echo %s; exit %d", id, i+1))
		done := make(chan error, 1)
		go func() {
			_, err := n.client.Create(n.ctx(), r)
			if err == nil {
				err = n.client.Start(n.ctx(), id)
			}
			done <- err
		}()
		_, inner := n.pids()
		time.Sleep(time.Duration(i*7) * time.Millisecond) // somewhere inside create or start
		n.kill(inner)
		if err := <-done; err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		if e := n.exit(id); e.Code != i+1 || e.Unknown {
			t.Fatalf("exit of %s: %+v", id, e)
		}
		if out, _ := n.logged(id); out != id+"\n" {
			t.Fatalf("%s logged %q", id, out)
		}
		n.newInner(inner)
	}
}

// adoption is the request to watch the process of a container that was created so.
func adoption(r wire.Create) wire.Adopt {
	return wire.Adopt{ID: r.ID, Bundle: r.Bundle, Runtime: r.Runtime, ExitFile: r.ExitFile, LogPath: r.LogPath, TTY: r.TTY}
}
