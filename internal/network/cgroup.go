package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
)

// killTimeout limits the wait for killed processes. Only one in uninterruptible sleep takes longer than milliseconds.
const killTimeout = 10 * time.Second

// finishTimeout is how long a plugin that an earlier daemon started may take to end by itself, before it is killed.
const finishTimeout = 5 * time.Second

// leaveTimeout limits the wait for a process that has been reaped to leave its group.
const leaveTimeout = time.Second

// cgroups makes, kills and removes the groups that plugins run in. A group is known by its name alone: nothing of it is
// kept in memory, because the process that made it may be gone.
type cgroups struct {
	root string // <cgroup2 mount>/<parent>, "" where there is no usable cgroup2
	// off is set when the kernel turns out to refuse CLONE_INTO_CGROUP.
	off atomic.Bool
}

func newCgroups(parent string) (*cgroups, error) {
	if !filepath.IsLocal(parent) || filepath.Clean(parent) == "." {
		return nil, invalid(fmt.Sprintf("network: cgroup parent %q is not the name of a group below the root", parent))
	}
	hierarchies, err := cgroup.Detect()
	if err != nil {
		return nil, fmt.Errorf("find the cgroup2 mount: %w", err)
	}
	if hierarchies.Unified == "" {
		return &cgroups{}, nil
	}
	g := &cgroups{root: filepath.Join(hierarchies.Unified, parent)}
	// Tried, since a hierarchy that is read-only or delegated to others is as good as none.
	if err := os.MkdirAll(g.root, 0o755); err != nil {
		return &cgroups{}, nil
	}
	g.removeRoot()
	return g, nil
}

func (g *cgroups) usable() bool { return g.root != "" && !g.off.Load() }

func (g *cgroups) group(name string) cgroup.Group { return cgroup.Group(filepath.Join(g.root, name)) }

// open makes the group if need be and opens it for CLONE_INTO_CGROUP. It returns nil where there are no groups. The
// caller closes the file.
func (g *cgroups) open(name string) (*os.File, error) {
	if !g.usable() {
		return nil, nil
	}
	dir := filepath.Join(g.root, name)
	// Another daemon that shares the parent removes it whenever it is empty, perhaps between two of these calls. Each
	// round that fails so means that another daemon has finished something; 100 is never reached.
	var err error
	for range 100 {
		if err = os.MkdirAll(dir, 0o755); err == nil {
			var f *os.File
			if f, err = os.Open(dir); err == nil {
				return f, nil
			}
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return nil, fmt.Errorf("make the cgroup of a CNI plugin: %w", err)
}

// signal sends SIGKILL to all processes of the group, does not wait, and returns what they are called.
func (g *cgroups) signal(name string) ([]string, error) {
	if g.root == "" {
		return nil, nil
	}
	names := g.group(name).Names()
	return names, g.group(name).Signal()
}

// kill kills what is in the group, waits until it has ended, and removes the group and, if it is empty, the parent. A
// group that is not there is no error. The wait ends with ctx or after killTimeout; then the error names what has not
// ended.
func (g *cgroups) kill(ctx context.Context, name string) error {
	if g.root == "" {
		return nil
	}
	defer g.removeRoot()
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	return g.group(name).Kill(ctx)
}

// wait waits until nothing runs in the group any more, at most for that long, and not longer than ctx lasts.
func (g *cgroups) wait(ctx context.Context, name string, longest time.Duration) {
	if g.root == "" {
		return
	}
	const step = 100 * time.Millisecond // between two looks at ctx
	for end := time.Now().Add(longest); time.Now().Before(end) && ctx.Err() == nil; {
		if empty, err := g.group(name).Wait(step); empty || err != nil {
			return
		}
	}
}

// remove removes the group if it is empty, and returns the names of the processes in it if it is not.
func (g *cgroups) remove(name string) []string {
	if g.root == "" {
		return nil
	}
	defer g.removeRoot()
	group := g.group(name)
	for {
		if err := group.Remove(); err == nil {
			return nil
		}
		if names := group.Names(); len(names) > 0 {
			return names
		}
		// A process that has ended and was reaped can hold its group for a moment longer: since Linux 6.19 until it has
		// been switched out.
		if empty, err := group.Wait(leaveTimeout); !empty || err != nil {
			return []string{"a process that is ending"}
		}
	}
}

// removeRoot removes the parent unless something is in it.
func (g *cgroups) removeRoot() { _ = unix.Rmdir(g.root) }
