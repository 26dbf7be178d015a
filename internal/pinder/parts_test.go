package pinder

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
)

func TestOOMCountersOfBothCgroupVersions(t *testing.T) {
	for in, want := range map[string]uint64{
		"oom_kill_disable 0\nunder_oom 0\noom_kill 3\n":                                 3,
		"low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 1\nsock_throttled 0\n": 2,
	} {
		if got, err := parseOOMKills(strings.NewReader(in)); err != nil || got != want {
			t.Errorf("%q: %d, %v", in, got, err)
		}
	}
	if _, err := parseOOMKills(strings.NewReader("oom_kill_disable 0\n")); !errors.Is(err, errNoCounter) {
		t.Errorf("no counter: %v", err)
	}
}

func TestUnclaimedChildStaysUntilCallsUnderWayHaveEnded(t *testing.T) {
	c := newChildren()
	first := c.beginCall()
	c.mu.Lock()
	defer c.mu.Unlock()
	may := func(want bool, why string) {
		t.Helper()
		if got := c.mayReap(10); got != want {
			t.Fatalf("%s: may reap: %v", why, got)
		}
	}
	may(false, "a call is under way that may report it")
	c.calls[first+1] = true
	c.last = first + 1
	delete(c.calls, first)
	may(true, "the later call began after it was seen")
	c.claimed[10] = true
	may(false, "it is claimed")
}

func TestPeekLeavesTheZombieAndReapTakesIt(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", "exit 9")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	h, err := descriptor.Pollable(fd, "pidfd")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	start, err := startTime(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Raw.Read(func(uintptr) bool { return pidfdExited(fd) }); err != nil {
		t.Fatal(err)
	}
	want := waitStatus{cldExited, 9}
	for range 2 {
		if got, ws, err := peek(unix.P_PID, pid); err != nil || got != pid || ws != want {
			t.Fatalf("peek: %d, %+v, %v", got, ws, err)
		}
	}
	if ws, ok := exitOfStranger(fd, pid, start); !ok || ws != want {
		t.Fatalf("as a stranger: %+v, %v", ws, ok)
	}
	if got, ws, err := reap(unix.P_PIDFD, fd); err != nil || got != pid || ws != want {
		t.Fatalf("reap: %d, %+v, %v", got, ws, err)
	}
	if _, _, err := peek(unix.P_PID, pid); !errors.Is(err, unix.ECHILD) {
		t.Fatalf("peek after reap: %v", err)
	}
}

func TestPidfdIsOpenedOnlyOnTheProcessMeant(t *testing.T) {
	cmd := exec.Command("/bin/sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	start, err := startTime(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openVerified(cmd.Process.Pid, start+1); err == nil {
		t.Fatal("a wrong start time was accepted")
	}
	h, err := openVerified(cmd.Process.Pid, start)
	if err != nil {
		t.Fatal(err)
	}
	h.Close()
}

func TestIDsAreChecked(t *testing.T) {
	for _, id := range []string{"", "a/b", "../x", ".x", "a b", "ä", strings.Repeat("x", 129)} {
		if checkID("container", id) == nil {
			t.Errorf("%q is accepted", id)
		}
	}
	for _, id := range []string{"a", "A-b_c.d", strings.Repeat("0", 32)} {
		if err := checkID("container", id); err != nil {
			t.Error(err)
		}
	}
}

func TestKillFileIsNeverThatOfOthers(t *testing.T) {
	for _, path := range []string{"", "/"} {
		if ownCgroupOf(path) {
			t.Errorf("%q is taken for a container's cgroup", path)
		}
	}
	_, own, err := cgroupPaths(unix.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if ownCgroupOf(own) {
		t.Errorf("our own cgroup %q is taken for a container's", own)
	}
	if !ownCgroupOf("/kubepods/pod1/c") {
		t.Error("a container's cgroup is not accepted")
	}
}
