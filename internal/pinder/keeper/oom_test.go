package keeper

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// slice is a parent group made of files, with containers below it.
type slice struct {
	t      *testing.T
	dir    string
	keeper *Keeper
}

func (s *slice) parent() string { return filepath.Join(s.dir, eventsFile) }

// counts writes a group's memory.events; "" is the parent's.
func (s *slice) counts(group string, kills int) {
	s.t.Helper()
	dir := filepath.Join(s.dir, group)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, eventsFile), fmt.Appendf(nil, "max 9\noom_kill %d\n", kills), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// add makes a container, as identify does.
func (s *slice) add(id string) *process {
	s.t.Helper()
	s.counts(id, 0)
	st, err := newState()
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(st.close)
	events := filepath.Join(s.dir, id, eventsFile)
	p := s.keeper.wrap(containerKey(id), st, meta{ID: id, Cgroup: group{Events: events, Parent: oomParent(events, true)}})
	p.meta.Cgroup.count()
	s.keeper.remember(p)
	s.keeper.oom.reckon(s.parent())
	return p
}

// vanish removes a container's group, as systemd does.
func (s *slice) vanish(p *process) {
	s.t.Helper()
	if err := os.RemoveAll(filepath.Join(s.dir, p.meta.ID)); err != nil {
		s.t.Fatal(err)
	}
}

func TestAnOOMKillIsFoundThoughTheContainersGroupIsGone(t *testing.T) {
	s := &slice{t: t, dir: t.TempDir(), keeper: bareKeeper(t)}
	s.counts("", 5) // of containers before these
	a, b, c, d := s.add("a"), s.add("b"), s.add("c"), s.add("d")
	asked := func(p *process, want bool) {
		t.Helper()
		if got := s.keeper.oom.killed(p); got != want {
			t.Errorf("%s was killed for want of memory: %v, want %v", p.meta.ID, got, want)
		}
	}
	// A child of b is killed, and then a, whose group is gone at once.
	s.counts("b", 2)
	s.counts("", 5+2+1)
	s.vanish(a)
	asked(a, true)
	// c ends for another reason; what a and b had is not taken for its.
	s.vanish(c)
	asked(c, false)
	// b's own counter can be read.
	asked(b, true)
	s.vanish(d)
	asked(d, false)
	// The group of one that came later counts from there on.
	e := s.add("e")
	s.counts("", 5+2+1+1)
	s.vanish(e)
	asked(e, true)
}

func TestOnlyGroupsOfSystemdAreLookedForAbove(t *testing.T) {
	for _, c := range []struct {
		events  string
		systemd bool
		want    string
	}{
		{"/sys/fs/cgroup/p.slice/c.scope/memory.events", true, "/sys/fs/cgroup/p.slice/memory.events"},
		{"/sys/fs/cgroup/pinfold/c/memory.events", false, ""},
		{"/sys/fs/cgroup/memory/p.slice/c.scope/memory.oom_control", true, ""},
		{"", true, ""},
	} {
		if got := oomParent(c.events, c.systemd); got != c.want {
			t.Errorf("%s: %q, want %q", c.events, got, c.want)
		}
	}
}
