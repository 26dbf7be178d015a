package pinder

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// cgroup is where a container's memory events are counted and how it is killed.
type cgroup struct {
	// Path is the container's path as /proc/PID/cgroup shows it, in the v1 memory
	// hierarchy where there is one, else in cgroup2.
	Path string `json:"path,omitempty"`
	// Kill is the cgroup.kill file, empty where cgroup2 does not tell the
	// container from others.
	Kill string `json:"kill,omitempty"`
	// Events is memory.events (v2) or memory.oom_control (v1).
	Events string `json:"events,omitempty"`
	// Base is the count of OOM kills before the container started.
	Base uint64 `json:"base,omitempty"`
	// Parent is the memory.events of the group above, see oomParent; Others how many OOM kills it counts that
	// neither this container nor another that lives has counted.
	Parent string `json:"parent,omitempty"`
	Others uint64 `json:"others,omitempty"`
}

// eventsFile is where version 2 counts a group's OOM kills.
const eventsFile = "memory.events"

// cgroupMounts finds the mount points of the two hierarchies that matter.
var cgroupMounts = sync.OnceValues(func() (memory, unified string) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", ""
	}
	for line := range strings.Lines(string(b)) {
		left, right, ok := strings.Cut(line, " - ")
		fields, types := strings.Fields(left), strings.Fields(right)
		if !ok || len(fields) < 5 || len(types) < 3 {
			continue
		}
		switch {
		case types[0] == "cgroup2" && unified == "":
			unified = fields[4]
		case types[0] == "cgroup" && memory == "" && hasOption(types[2], "memory"):
			memory = fields[4]
		}
	}
	return memory, unified
})

func hasOption(options, want string) bool {
	for o := range strings.SplitSeq(options, ",") {
		if o == want {
			return true
		}
	}
	return false
}

// membership is a process's group in one hierarchy.
type membership struct {
	controllers string // "" is version 2
	group       string
}

// memberships reads /proc/PID/cgroup.
func memberships(pid int) ([]membership, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return nil, err
	}
	var list []membership
	for line := range strings.Lines(string(b)) {
		if parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3); len(parts) == 3 {
			list = append(list, membership{controllers: parts[1], group: parts[2]})
		}
	}
	return list, nil
}

// cgroupPaths are the groups that matter for memory: that of version 1's controller, and that of version 2.
func cgroupPaths(pid int) (memory, unified string, err error) {
	list, err := memberships(pid)
	for _, m := range list {
		switch {
		case m.controllers == "":
			unified = m.group
		case hasOption(m.controllers, "memory"):
			memory = m.group
		}
	}
	return memory, unified, err
}

// findCgroup looks at where the container's init lives. What cannot be found is
// left empty: a container without OOM counters is still a container. own are the
// container's groups that are known by name. moved says that the process may have
// been moved since it was started: then no other group than those is taken.
func findCgroup(pid int, own []string, moved bool) cgroup {
	var c cgroup
	memMount, uniMount := cgroupMounts()
	mem, uni, err := cgroupPaths(pid)
	if err != nil {
		return c
	}
	group := uni
	for _, g := range own {
		if within([]string{uni}, []string{g}) {
			group, moved = g, false
		}
	}
	if uniMount != "" && !moved && ownCgroupOf(group) {
		kill := filepath.Join(uniMount, group, "cgroup.kill")
		if unix.Access(kill, unix.W_OK) == nil {
			c.Kill = kill
		}
	}
	switch {
	case memMount != "" && mem != "":
		c.Path, c.Events = mem, filepath.Join(memMount, mem, "memory.oom_control")
	case uniMount != "" && uni != "":
		c.Path, c.Events = uni, filepath.Join(uniMount, uni, eventsFile)
	}
	return c
}

// ownCgroupOf guards against killing more than a container: its cgroup2 path
// must be neither the root nor pinder's own cgroup nor an ancestor of it.
func ownCgroupOf(path string) bool {
	if path == "" || path == "/" {
		return false
	}
	_, own, err := cgroupPaths(os.Getpid())
	return err == nil && own != path && !strings.HasPrefix(own, strings.TrimSuffix(path, "/")+"/")
}

// oomKills reads the counter from an open events file. Reading fails with
// ENODEV once the cgroup is removed, which is why it is read before the zombie
// is reaped; see oomKilled for groups that are removed earlier.
func oomKills(fd int) (uint64, error) {
	buf := make([]byte, 1024)
	n, err := unix.Pread(fd, buf, 0)
	if err != nil {
		return 0, fmt.Errorf("read OOM counters: %w", err)
	}
	return parseOOMKills(bytes.NewReader(buf[:n]))
}

var errNoCounter = errors.New("no oom_kill counter")

// parseOOMKills sums "oom_kill" and, where it is counted apart, "oom_group_kill".
func parseOOMKills(r io.Reader) (uint64, error) {
	var sum uint64
	found := false
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		name, value, _ := strings.Cut(sc.Text(), " ")
		if name != "oom_kill" && name != "oom_group_kill" {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("OOM counter %s: %w", name, err)
		}
		sum, found = sum+n, true
	}
	if !found {
		return 0, errNoCounter
	}
	return sum, nil
}
