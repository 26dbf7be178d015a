package keeper

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
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
	list, err := cgroup.Of(unix.Getpid())
	own := cgroup.Unified(list)
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
