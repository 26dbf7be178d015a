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

// group is where the kernel counts a container's memory events, and how to kill the container.
type group struct {
	// Path is the container's path in /proc/PID/cgroup: that of version 1's memory controller if there is one, else
	// that of cgroup2.
	Path string `json:"path,omitempty"`
	// Kill is the cgroup.kill file. It is empty if the group in cgroup2 may hold others, too.
	Kill string `json:"kill,omitempty"`
	// Events is memory.events (v2) or memory.oom_control (v1).
	Events string `json:"events,omitempty"`
	// Base is the count of OOM kills before the container started.
	Base uint64 `json:"base,omitempty"`
	// Parent is the memory.events of the group above, see oomParent. Others is the number of OOM kills in it that
	// neither this container nor another living one has counted.
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

// findCgroup finds the groups of a container's init. What it does not find stays empty: a container without OOM
// counters is still a container. own are the container's groups that have its name. If moved is true, the process may
// have left its groups since it was started; then findCgroup takes no other groups than those.
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

// ownCgroupOf reports whether a cgroup2 path can be a container's: it is neither the root, nor pinder's own group, nor
// one above that. To kill such a group would kill others.
func ownCgroupOf(path string) bool {
	if path == "" || path == "/" {
		return false
	}
	list, err := cgroup.Of(os.Getpid())
	own := cgroup.Unified(list)
	return err == nil && own != path && !strings.HasPrefix(own, strings.TrimSuffix(path, "/")+"/")
}

// count notes the OOM kills before the container's start. A counter that cannot be read is not one.
func (g *group) count() {
	var err error
	if g.Base, err = g.oomKills(); err != nil {
		g.Events = ""
	}
}

// oomKills reads the group's counter. That fails once the group is removed, so it is read before the zombie is reaped.
// See oom.killed for groups that are removed earlier. An open file could not be read then either, so none is kept.
func (g *group) oomKills() (uint64, error) {
	if g.Events == "" {
		return 0, errNoCounter
	}
	fd, err := unix.Open(g.Events, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open OOM counters: %w", err)
	}
	defer func() { _ = unix.Close(fd) }() // only read from
	return oomKills(fd)
}

// oomKills reads the counter from an open events file.
func oomKills(fd int) (uint64, error) {
	buf := make([]byte, 1024)
	n, err := unix.Pread(fd, buf, 0)
	if err != nil {
		return 0, fmt.Errorf("read OOM counters: %w", err)
	}
	return parseOOMKills(bytes.NewReader(buf[:n]))
}

var errNoCounter = errors.New("no oom_kill counter")

// parseOOMKills adds "oom_kill" and "oom_group_kill", where the kernel counts that apart.
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
