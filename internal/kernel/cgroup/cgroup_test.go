package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/mountinfo"
	"github.com/pinfold-run/pinfold/internal/testroot"
)

func TestHierarchiesAreFoundInMountinfo(t *testing.T) {
	cpu := Hierarchy{Mount: "/sys/fs/cgroup/cpu,cpuacct", Controllers: []string{"cpu", "cpuacct"}}
	for name, c := range map[string]struct {
		info string
		want Hierarchies
	}{
		"unified": {
			"25 20 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
			Hierarchies{Unified: "/sys/fs/cgroup"},
		},
		"hybrid": {
			"31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n" +
				"32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n" +
				"33 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd\n" +
				"41 31 0:38 / /sys/fs/cgroup/unified rw master:1 propagate_from:2 - cgroup2 cgroup2 rw\n" +
				"42 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n",
			Hierarchies{
				Unified: "/sys/fs/cgroup/unified",
				V1:      []Hierarchy{cpu, {Mount: "/sys/fs/cgroup/systemd", Controllers: []string{"name=systemd"}}},
			},
		},
		"a copy comes first": {
			"1 1 0:1 / /run/a\\040b rw - cgroup2 none rw\n2 1 0:1 / /sys/fs/cgroup rw - cgroup2 none rw\n",
			Hierarchies{Unified: "/sys/fs/cgroup"},
		},
		"elsewhere":       {"1 1 0:1 / /run/a\\040b rw - cgroup2 none rw\n", Hierarchies{Unified: "/run/a b"}},
		"version 1 alone": {"32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n", Hierarchies{V1: []Hierarchy{cpu}}},
	} {
		mounts, err := mountinfo.Parse(strings.NewReader(c.info), isCgroup)
		if err != nil {
			t.Fatal(err)
		}
		got := *detect(mounts)
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
		if got.Pure() != (name == "unified" || name == "elsewhere" || name == "a copy comes first") {
			t.Errorf("%s: pure is %t", name, got.Pure())
		}
		if v1 := len(c.want.V1) > 0; (got.Mount("cpuacct") == cpu.Mount) != v1 || got.Controls("cpuacct") && !v1 || got.Mount("rw") != "" {
			t.Errorf("%s: cpuacct is in %q, rw in %q", name, got.Mount("cpuacct"), got.Mount("rw"))
		}
	}
}

func TestALineOfAnotherMountThatCannotBeReadIsIgnored(t *testing.T) {
	info := "rubbish\n2 1 0:1 / /sys/fs/cgroup rw - cgroup2 none rw\n"
	h, err := fromMounts(mountinfo.Parse(strings.NewReader(info), isCgroup))
	if err != nil || h.Unified != "/sys/fs/cgroup" {
		t.Errorf("%+v, %v", h, err)
	}
	if _, err := fromMounts(nil, fs.ErrPermission); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a mount table that cannot be read: %v", err)
	}
}

func TestThePathOfAGroupIsThatBelowTheInnermostMount(t *testing.T) {
	h := &Hierarchies{Unified: "/sys/fs/cgroup", V1: []Hierarchy{{Mount: "/sys/fs/cgroup/freezer"}}}
	for dir, want := range map[string]string{"/sys/fs/cgroup/freezer/a": "/a", "/sys/fs/cgroup/a": "/a"} {
		if got, ok := h.Below(dir); got != want || !ok {
			t.Errorf("%s: %q, %t", dir, got, ok)
		}
	}
}

func TestGroupsOutsideOfThisNamespaceHaveNames(t *testing.T) {
	got := names([]byte("4:memory:/a:b\n0::/../other/id\n::\nrubbish\n"))
	if !slices.Equal(got, []string{"/a:b", "/../other/id", ""}) {
		t.Errorf("%q", got)
	}
	if UpTo(got[1], "id") != got[1] || !Within(got, []string{"/../other"}) {
		t.Error("the group outside is not found by its name")
	}
}

func TestThePathOfAGroupIsThatBelowItsMount(t *testing.T) {
	h := &Hierarchies{Unified: "/sys/fs/cgroup/unified", V1: []Hierarchy{{Mount: "/sys/fs/cgroup/freezer"}}}
	for dir, want := range map[string]string{
		"/sys/fs/cgroup/freezer/a/b": "/a/b", "/sys/fs/cgroup/unified/c": "/c", "/sys/fs/cgroup/unified": "", "/elsewhere": "",
	} {
		if got, ok := h.Below(dir); got != want || ok != (want != "") {
			t.Errorf("%s: %q, %t", dir, got, ok)
		}
	}
}

func TestTheGroupsOfAProcess(t *testing.T) {
	for name, c := range map[string]struct{ groups, unified, memory string }{
		"pure":                      {"0::/system.slice/pinfold.service\n", "/system.slice/pinfold.service", ""},
		"hybrid":                    {"4:blkio,memory:/a\n1:name=systemd:/b\n0::/c/d\n", "/c/d", "/a"},
		"the root":                  {"0::/\n", "/", ""},
		"outside of this namespace": {"0::/../other\n", "", ""},
		"version 1 alone":           {"4:memory:/a\n", "", "/a"},
		"a name with a colon":       {"0::/a:b/c\n", "/a:b/c", ""},
		"rubbish":                   {"0:\n::\n\n4:memory:a\n", "", ""},
	} {
		list := ParseMemberships([]byte(c.groups))
		if Unified(list) != c.unified || In(list, "memory") != c.memory {
			t.Errorf("%s: %q, %q", name, Unified(list), In(list, "memory"))
		}
	}
	own, err := Of(os.Getpid())
	if err != nil || len(own) == 0 {
		t.Errorf("ours: %+v, %v", own, err)
	}
	if _, err := Of(1 << 22); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a process that does not exist: %v", err)
	}
}

func TestAGroupIsWithinAnotherByWholeNames(t *testing.T) {
	groups := []string{"/a/b", "/x"}
	for path, want := range map[string]bool{"/a/b": true, "/a/b/c": true, "/a/bc": false, "/a": false, "/": false, "/x/y": true} {
		if Within([]string{"/other", path}, groups) != want {
			t.Errorf("%s: %t", path, !want)
		}
	}
}

func FuzzMemberships(f *testing.F) {
	f.Add([]byte("4:memory:/a/b\n0::/../x\n1:name=systemd:/\n:::\n2:cpu,cpuacct:/a:b/../../c\n"), "b")
	f.Fuzz(func(t *testing.T, data []byte, id string) {
		for _, m := range ParseMemberships(data) {
			if !strings.HasPrefix(m.Path, "/") || strings.Contains(m.Path+"/", "/../") {
				t.Errorf("path %q leads out of the hierarchy", m.Path)
			}
			if own := UpTo(m.Path, id); own != "" && (!Within([]string{m.Path}, []string{own}) || !strings.Contains(own, id)) {
				t.Errorf("%q is not the part of %q up to %q", own, m.Path, id)
			}
		}
	})
}

// realGroup makes a group of cgroup2 with a group below it, and a function that starts a process in the lower one.
func realGroup(t *testing.T) (Group, func(args ...string) *exec.Cmd) {
	t.Helper()
	testroot.Need(t)
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	if h.Unified == "" {
		t.Skip("this host has no cgroup2")
	}
	g := Group(filepath.Join(h.Unified, fmt.Sprintf("pinfold-test-%d", os.Getpid())))
	below := filepath.Join(string(g), "a", "b")
	if err := os.MkdirAll(below, 0o755); err != nil {
		t.Skipf("no group can be made: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := g.Kill(ctx); err != nil {
			t.Error(err)
		}
	})
	return g, func(args ...string) *exec.Cmd {
		dir, err := os.Open(below)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		cmd := exec.Command(args[0], args[1:]...)
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
		if err := cmd.Start(); err != nil {
			t.Skipf("no process can be started in a group: %v", err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		return cmd
	}
}

func TestAGroupIsKilledWithAllBelowItAndRemoved(t *testing.T) {
	g, start := realGroup(t)
	cmd := start("/bin/sleep", "1000")
	pids, err := g.Processes()
	if err != nil || !slices.Equal(pids, []int{cmd.Process.Pid}) {
		t.Errorf("its processes are %v, %v; want %d", pids, err, cmd.Process.Pid)
	}
	if names := g.Names(); len(names) != 1 || !strings.Contains(names[0], fmt.Sprintf("[%d]", cmd.Process.Pid)) {
		t.Errorf("its names are %q", names)
	}
	if kill := g.KillFile(); kill != "" && kill != string(g)+"/cgroup.kill" {
		t.Errorf("its file to kill it is %q", kill)
	}
	if err := g.Remove(); !errors.Is(err, unix.EBUSY) {
		t.Errorf("a group with a process is removed: %v", err)
	}
	if empty, err := g.Wait(10 * time.Millisecond); empty || err != nil {
		t.Errorf("empty: %t, %v", empty, err)
	}
	if err := g.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") || g.Exists() {
		t.Errorf("the process: %v; the group is left: %t", err, g.Exists())
	}
}

func TestAGroupThatIsNotThereIsEmptyKilledAndRemoved(t *testing.T) {
	g := Group(filepath.Join(t.TempDir(), "missing"))
	empty, err := g.Wait(time.Hour)
	if !empty || errors.Join(err, g.Signal(), g.Kill(t.Context()), g.Remove()) != nil || g.Exists() || g.KillFile() != "" || g.Names() != nil {
		t.Errorf("empty %t, %v", empty, err)
	}
	if _, err := g.Processes(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its processes: %v", err)
	}
}

func TestAnErrorNamesAFewProcesses(t *testing.T) {
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i"}
	if got := Brief(names); got != "a, b, c, d, e, f, g, h and 1 more" || Brief(names[:2]) != "a, b" {
		t.Error(got)
	}
}

func TestAProcessOfNoFreezerIsNotFrozen(t *testing.T) {
	h := &Hierarchies{Unified: "/sys/fs/cgroup"}
	h.Unfreeze(os.Getpid())
	if got := h.FreezingGroup(os.Getpid()); got != "" {
		t.Errorf("frozen by %s", got)
	}
}
