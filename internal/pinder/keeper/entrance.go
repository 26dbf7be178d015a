package keeper

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/pinder/entry"
	"github.com/pinfold-run/pinfold/internal/pinder/spawn"
)

// entrance is what direct execs into a container need to know of it. It is found out at the first one, and does not
// change while the container runs.
type entrance struct {
	once sync.Once
	err  error // why the runtime has to make the execs
	entry.Container
	// tasks are the files of version 1 hierarchies by which a process joins the container's groups, by controllers.
	tasks map[string]string
	// unified is the directory of the container's group in cgroup2, "" if that is not mounted.
	unified string
	filter  filtered
}

// maxBundleConfig is how large a bundle's config.json may be, in bytes.
const maxBundleConfig = 8 << 20

// bundleConfig has the parts of a bundle's config.json that matter for an exec.
type bundleConfig struct {
	Process struct {
		User struct {
			Umask *uint32 `json:"umask"`
		} `json:"user"`
		Capabilities *entry.Capabilities `json:"capabilities"`
		OOMScoreAdj  *int                `json:"oomScoreAdj"`
	} `json:"process"`
	Linux struct {
		Namespaces []struct {
			Type string `json:"type"`
			Path string `json:"path"`
		} `json:"namespaces"`
		Seccomp      json.RawMessage `json:"seccomp"`
		Personality  json.RawMessage `json:"personality"`
		MemoryPolicy json.RawMessage `json:"memoryPolicy"`
		IntelRdt     json.RawMessage `json:"intelRdt"`
		TimeOffsets  json.RawMessage `json:"timeOffsets"`
	} `json:"linux"`
	VM json.RawMessage `json:"vm"`
}

func readBundle(dir string) (*bundleConfig, error) {
	f, err := os.Open(filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxBundleConfig+1))
	if err == nil && len(data) > maxBundleConfig {
		err = fmt.Errorf("larger than %d bytes", maxBundleConfig)
	}
	if err != nil {
		return nil, err
	}
	var c bundleConfig
	return &c, json.Unmarshal(data, &c)
}

// left is the error of what the runtime does.
func left(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), entry.ErrRuntime)
}

// known returns why there are no direct execs into the running container p, nil if there are.
func (w *entrance) known(p *process) error {
	w.once.Do(func() { w.err = w.find(p) })
	if w.err == nil && w.filter.wanted {
		return w.filter.known(p)
	}
	return w.err
}

func (w *entrance) find(p *process) error {
	m := p.snapshot()
	c, err := readBundle(m.Bundle)
	if err != nil {
		return left("the bundle's configuration: %v", err)
	}
	for _, f := range []struct {
		name  string
		value json.RawMessage
	}{
		{"personality", c.Linux.Personality},
		{"memoryPolicy", c.Linux.MemoryPolicy},
		{"intelRdt", c.Linux.IntelRdt},
		{"timeOffsets", c.Linux.TimeOffsets},
		{"vm", c.VM},
	} {
		if len(f.value) > 0 && string(f.value) != "null" {
			return left("the container has %s", f.name)
		}
	}
	w.filter.wanted = len(c.Linux.Seccomp) > 0 && string(c.Linux.Seccomp) != "null"
	w.ID, w.Umask, w.OOMScoreAdj = m.ID, c.Process.User.Umask, c.Process.OOMScoreAdj
	for _, l := range m.Runtime.Rlimits {
		w.Rlimits = append(w.Rlimits, entry.Rlimit{Type: l.Type, Hard: l.Hard, Soft: l.Soft})
	}
	if w.Namespaces, err = foreignNamespaces(m.PID); err != nil {
		return err
	}
	if err := w.check(c); err != nil {
		return err
	}
	if err := w.findGroups(m.PID); err != nil {
		return err
	}
	return m.Check() // all of that was read of this process, and of no later one
}

// check refuses containers whose processes could trace the child before it runs its program. It has a copy of pinder's
// memory until then. The kernel asks for CAP_SYS_PTRACE in the user namespace of that memory, which is ours
// (kernel/ptrace.c, __ptrace_may_access; the child is not dumpable).
func (w *entrance) check(c *bundleConfig) error {
	if w.Namespaces&unix.CLONE_NEWNS == 0 {
		return left("the container has no mount namespace")
	}
	// 1: a change of the user makes a process traceable by all of that user (proc_sys_fs(5), suid_dumpable).
	if dumpable, err := os.ReadFile("/proc/sys/fs/suid_dumpable"); err != nil || strings.TrimSpace(string(dumpable)) == "1" {
		return left("the node lets processes be traced that change their user (%v)", err)
	}
	if w.Namespaces&unix.CLONE_NEWUSER != 0 {
		return nil
	}
	if c.Process.Capabilities.MayTrace() {
		return left("the container may trace processes, and has no user namespace")
	}
	for _, n := range c.Linux.Namespaces {
		if n.Type == "pid" && n.Path != "" {
			return left("the container shares the processes of its pod, and has no user namespace")
		}
	}
	return nil
}

// namespaceFlags are the names of namespaces in /proc/PID/ns, and their flags for setns(2).
var namespaceFlags = map[string]int{
	"user": unix.CLONE_NEWUSER, "mnt": unix.CLONE_NEWNS, "pid": unix.CLONE_NEWPID, "net": unix.CLONE_NEWNET,
	"ipc": unix.CLONE_NEWIPC, "uts": unix.CLONE_NEWUTS, "cgroup": unix.CLONE_NEWCGROUP, "time": unix.CLONE_NEWTIME,
}

// foreignNamespaces are the namespaces of a process that are not ours.
func foreignNamespaces(pid int) (flags int, err error) {
	for name, flag := range namespaceFlags {
		var theirs, ours unix.Stat_t
		err := unix.Stat(proc.Process{PID: pid}.NamespacePath(name), &theirs)
		if err == nil {
			err = unix.Stat("/proc/self/ns/"+name, &ours)
		}
		if err != nil {
			return 0, left("namespace %s: %v", name, err)
		}
		if theirs.Ino != ours.Ino || theirs.Dev != ours.Dev {
			flags |= flag
		}
	}
	if flags&unix.CLONE_NEWTIME != 0 {
		return 0, left("the container has a time namespace")
	}
	return flags, nil
}

// findGroups finds the container's groups. One that cannot be joined by a path of ours is left to the runtime.
func (w *entrance) findGroups(pid int) error {
	list, err := cgroup.Of(pid)
	if err != nil {
		return left("cgroups: %v", err)
	}
	h := hierarchies()
	w.tasks = map[string]string{}
	for _, v := range h.V1 {
		path := cgroup.In(list, v.Controllers[0])
		if path == "" {
			return left("the container's group of %s is not known", strings.Join(v.Controllers, ","))
		}
		w.tasks[strings.Join(v.Controllers, ",")] = filepath.Join(v.Mount, path, "tasks")
	}
	if h.Unified != "" {
		path := cgroup.Unified(list)
		if path == "" {
			return left("the container's group in cgroup2 is not known")
		}
		w.unified = filepath.Join(h.Unified, path)
	}
	return nil
}

// groups opens what a child joins the container's groups by; own is the directory of a group of the exec's own, "" for
// none. The caller closes them.
func (w *entrance) groups(own string) (files []int, place spawn.Place, err error) {
	place = spawn.Place{Namespaces: -1, Cgroup: -1}
	defer func() {
		if err != nil {
			closeAll(files, place.Cgroup)
		}
	}()
	for _, tasks := range w.tasks {
		if own != "" && filepath.Dir(tasks) == filepath.Dir(own) {
			tasks = filepath.Join(own, "tasks")
		}
		fd, err := unix.Open(tasks, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return files, place, left("open %s: %v", tasks, err)
		}
		files = append(files, fd)
	}
	if w.unified == "" {
		return files, place, nil
	}
	dir := w.unified
	if own != "" && filepath.Dir(own) == dir {
		dir = own
	}
	if place.Cgroup, err = unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return files, place, left("open %s: %v", dir, err)
	}
	return files, place, nil
}

func closeAll(files []int, more int) {
	for _, fd := range append(files, more) {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}
