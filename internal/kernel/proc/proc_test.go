package proc

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func start(t *testing.T, args ...string) (*exec.Cmd, Process) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	p, err := Find(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return cmd, p
}

func open(t *testing.T, p Process) int {
	t.Helper()
	fd, err := p.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for limit := time.Now().Add(10 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%s did not come", what)
		}
	}
}

func TestAProcessIsNotAnotherOfItsPID(t *testing.T) {
	_, p := start(t, "/bin/sleep", "1000")
	fd := open(t, p)
	if !p.Alive() || p.Check() != nil || Ended(fd) {
		t.Errorf("%+v: alive %t, %v, ended %t", p, p.Alive(), p.Check(), Ended(fd))
	}
	later := p
	later.Start++
	if err := later.Check(); later.Alive() || err == nil || !strings.Contains(err.Error(), "is another one by now") {
		t.Errorf("of another start time: alive %t, %v", later.Alive(), err)
	}
	if fd, err := later.Open(); err == nil {
		_ = unix.Close(fd)
		t.Error("a wrong start time was accepted")
	}
	for _, none := range []Process{{}, {PID: -1}, {PID: 1 << 22, Start: 1}} {
		if none.Alive() || none.Check() == nil {
			t.Errorf("%+v is alive", none)
		}
	}
}

func TestAProcessWithoutADescriptorToLookAtItIsAlive(t *testing.T) {
	_, p := start(t, "/bin/sleep", "1000")
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	alive, err := p.Alive(), p.Check()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if !alive || !errors.Is(err, unix.EMFILE) {
		t.Errorf("alive %t, %v", alive, err)
	}
}

func TestPeekLeavesTheZombieAndReapTakesIt(t *testing.T) {
	for script, want := range map[string]Exit{"exit 9": {CodeExited, 9}, "kill -9 $$": {CodeKilled, 9}, "true": {CodeExited, 0}} {
		_, p := start(t, "/bin/sh", "-c", "read x; "+script)
		fd := open(t, p)
		await(t, "the end", func() bool { return Ended(fd) })
		if !p.Alive() {
			t.Error("a zombie does not exist")
		}
		for range 2 {
			if got, exit, err := Peek(unix.P_PID, p.PID); err != nil || got != p.PID || exit != want {
				t.Fatalf("%s: peek: %d, %+v, %v", script, got, exit, err)
			}
		}
		if exit, ok := p.Exit(fd); !ok || exit != want || exit.OK() != (script == "true") {
			t.Errorf("%s: as a stranger: %+v, %v", script, exit, ok)
		}
		if exit, ok := (Process{PID: p.PID, Start: p.Start + 1}).Exit(fd); ok && exit != want {
			t.Errorf("%s: of another process: %+v", script, exit)
		}
		if got, exit, err := Reap(unix.P_PIDFD, fd); err != nil || got != p.PID || exit != want {
			t.Errorf("%s: reap: %d, %+v, %v", script, got, exit, err)
		}
		if _, _, err := Peek(unix.P_PID, p.PID); !errors.Is(err, unix.ECHILD) {
			t.Errorf("%s: peek after reap: %v", script, err)
		}
		if p.Alive() {
			t.Errorf("%s: alive after it was reaped", script)
		}
	}
}

func TestARunningChildIsNotReaped(t *testing.T) {
	_, p := start(t, "/bin/sleep", "1000")
	for _, look := range []func(int, int) (int, Exit, error){Peek, Reap} {
		if pid, exit, err := look(unix.P_PID, p.PID); err != nil || pid != 0 || exit != (Exit{}) {
			t.Errorf("%d, %+v, %v", pid, exit, err)
		}
	}
}

func TestStatIsReadWhateverTheNameHolds(t *testing.T) {
	const line = "17 (a) b (c)) S 5 1 1 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 3 0 987654 1000\n"
	got, err := ParseStat([]byte(line))
	if want := (Stat{Process: Process{17, 987654}, Name: "a) b (c)", State: 'S', Parent: 5, Threads: 3}); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", "17 a S 5", "17 (a) S 5", ") S (", strings.Replace(line, "987654", "x", 1)} {
		if got, err := ParseStat([]byte(bad)); err == nil {
			t.Errorf("%q is read as %+v", bad, got)
		}
	}
}

func TestAllProcessesKnowTheirParents(t *testing.T) {
	_, child := start(t, "/bin/sleep", "1000")
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	found, ok := all[child.PID]
	if !ok || found.Process != child || found.Parent != os.Getpid() || found.Dead() {
		t.Errorf("%+v, %t", found, ok)
	}
	if !Descends(all, found, map[int]bool{os.Getpid(): true}) || Descends(all, found, map[int]bool{child.PID: true}) {
		t.Error("the child does not descend from its parent, or from itself")
	}
	older := all[os.Getpid()]
	older.Start = found.Start + 1
	all[os.Getpid()] = older
	if Descends(all, found, map[int]bool{older.Parent: true}) {
		t.Error("a process descends through a parent that is younger")
	}
}

func TestWhatStatusSays(t *testing.T) {
	_, p := start(t, "/bin/sleep", "1000")
	await(t, "its sleep", func() bool { return Status(p.PID, "State") == "S (sleeping)" })
	if got := p.State(); got != "S (sleeping)" || p.NamespacePath("net") != "/proc/"+strconv.Itoa(p.PID)+"/ns/net" {
		t.Errorf("%q, %s", got, p.NamespacePath("net"))
	}
	if got := Status(p.PID, "No such"); got != "" {
		t.Errorf("no such line: %q", got)
	}
	if got := string(CommandLine(p.PID, make([]byte, 100))); got != "/bin/sleep\x001000\x00" {
		t.Errorf("command line %q", got)
	}
	if Status(1<<22, "State") != "" || CommandLine(1<<22, make([]byte, 100)) != nil || (Process{PID: 1 << 22, Start: 1}).State() != "gone" || WaitChannel(1<<22) != "" || PIDNamespace(1<<22) != "" || MountNamespace(1<<22) != 0 {
		t.Error("a process that does not exist has something")
	}
	if IsFirst(p.PID) || MountNamespace(p.PID) != 0 || PIDNamespace(p.PID) != PIDNamespace(os.Getpid()) {
		t.Error("a child in our namespaces has its own")
	}
}

func TestTheKeysOfRecordsAndProtocolStay(t *testing.T) {
	data, err := json.Marshal(struct {
		Process
		Cgroup string `json:"cgroup"`
	}{Process{7, 9}, "/x"})
	if want := `{"pid":7,"startTime":9,"cgroup":"/x"}`; err != nil || string(data) != want {
		t.Errorf("%s, %v; want %s", data, err, want)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("1 (a) b) S 1 1 1 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 3 0 987654 1000\n"))
	f.Add([]byte(""))
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = ParseStat(data) })
}
