package keeper

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

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
)

// group is where a container's memory events are counted and how it is killed.
type group struct {
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

// hierarchies are those of this host.
var hierarchies = sync.OnceValue(func() *cgroup.Hierarchies {
	h, err := cgroup.Detect()
	if err != nil {
		return &cgroup.Hierarchies{}
	}
	return h
})

// findCgroup scans at where the container's init lives. What cannot be found is
// left empty: a container without OOM counters is still a container. own are the
// container's groups that are known by name. moved says that the process may have
// been moved since it was started: then no other group than those is taken.
func findCgroup(pid int, own []string, moved bool) group {
	var c group
	list, err := cgroup.Of(pid)
	if err != nil {
		return c
	}
	memMount, uniMount := hierarchies().Mount("memory"), hierarchies().Unified
	mem, uni := cgroup.In(list, "memory"), cgroup.Unified(list)
	path := uni
	for _, g := range own {
		if cgroup.Within([]string{uni}, []string{g}) {
			path, moved = g, false
		}
	}
	if uniMount != "" && !moved && ownCgroupOf(path) {
		c.Kill = cgroup.Group(filepath.Join(uniMount, path)).KillFile()
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
	list, err := cgroup.Of(os.Getpid())
	own := cgroup.Unified(list)
	return err == nil && own != path && !strings.HasPrefix(own, strings.TrimSuffix(path, "/")+"/")
}

// oomKills reads the counter from an open events file. Reading fails with
// ENODEV once the cgroup is removed, which is why it is read before the zombie
// is reaped; see oom.killed for groups that are removed earlier.
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
