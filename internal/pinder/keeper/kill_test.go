package keeper

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// sleeper is a container whose init is a child of the test.
func sleeper(t *testing.T) (k *Keeper, p *process, ended <-chan error) {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	pidfd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	h, err := descriptor.Pollable(pidfd, kindPidfd)
	if err != nil {
		t.Fatal(err)
	}
	st, err := newState()
	if err != nil {
		t.Fatal(err)
	}
	k = bareKeeper(t)
	p = k.wrap("c/a", st, meta{
		ID: "a", Phase: wire.PhaseRunning, Process: proc.Process{PID: cmd.Process.Pid}, Domain: domain{PIDNamespace: true},
	})
	p.handles.set(kindPidfd, h)
	k.remember(p)
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		h.Close()
		st.close()
	})
	return k, p, done
}

func TestWithoutADescriptorAKillFailsAndASignalIsSent(t *testing.T) {
	k, p, ended := sleeper(t)
	withoutDescriptors(t, func() {
		if err := p.end(time.Now().Add(time.Second)); err == nil {
			t.Error("a kill that could not be done is said to have been")
		}
		if all, err := proc.All(); err == nil {
			t.Errorf("of the node's processes %d are seen without a descriptor", len(all))
		}
		if err := k.signal(wire.Signal{ID: "a", Signal: int(unix.SIGKILL)}); err != nil {
			t.Errorf("signal: %v", err)
		}
	})
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the process was not signalled")
	}
	if err := p.end(time.Now().Add(time.Second)); err != nil {
		t.Errorf("a kill of what has ended: %v", err)
	}
}

func TestWhatHoldsUpTheEndOfAPIDNamespaceIsNamed(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 1000 & wait")
	own := []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWPID, UidMappings: own,
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	first, second := cmd.Process.Pid, 0
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	await := func(what string, done func() bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("timed out waiting for %s", what)
			}
		}
	}
	await("a child of PID 1", func() bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", first, first))
		second, _ = strconv.Atoi(strings.TrimSpace(string(b)))
		return second != 0
	})
	runtime.LockOSThread() // which is the debugger
	defer runtime.UnlockOSThread()
	if err := unix.PtraceSeize(second); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_, _ = unix.Wait4(second, nil, unix.WALL, nil) // the debugger lets go of it
	}()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	await("its end", func() bool { t, err := proc.ReadStat(second); return err == nil && t.Dead() })
	got := (&killing{root: first}).whyAlive(proc.Stat{Process: proc.Process{PID: first}})
	want := fmt.Sprintf("process %d (Z (zombie)) of parent %d, held by its debugger, process %d", second, first, unix.Gettid())
	if !strings.Contains(got, want) {
		t.Errorf("PID 1 %s; it waits for %s", got, want)
	}
}

// withoutDescriptors runs f while this process may open nothing.
func withoutDescriptors(t *testing.T, f func()) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Fatal(err)
		}
	}()
	f()
}

func TestAKillThatHasNoTimeLeftHasKilledAllTheSame(t *testing.T) {
	_, p, ended := sleeper(t)
	p.update(func(m *meta) { m.Domain = domain{}; m.ExecID = "x" }) //nolint:errcheck // in memory
	_ = p.end(time.Now().Add(-time.Second))                         // it may say that it has not seen the end
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was killed")
	}
}

func TestKillsThatWaitForALookAtTheProcessesShareIt(t *testing.T) {
	var s scans
	first := s.upcoming()
	for range 100 {
		if s.upcoming() != first {
			t.Fatal("each has a look of its own")
		}
	}
	if all, err := first.get(); err != nil || all.processes[os.Getpid()].PID != os.Getpid() {
		t.Fatalf("%d processes, %v", len(all.processes), err)
	}
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()         //nolint:errcheck // killed
	defer cmd.Process.Kill() //nolint:errcheck // its end is waited for
	again := s.upcoming()
	if again == first {
		t.Fatal("a look that has begun is given to one who asks later")
	}
	if all, err := again.get(); err != nil || all.processes[cmd.Process.Pid].Parent != os.Getpid() {
		t.Errorf("what began before the look is not in it: %+v, %v", all.processes[cmd.Process.Pid], err)
	}
}
