package cgroup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
)

// Exists reports whether the group is there.
func (g Group) Exists() bool {
	_, err := os.Lstat(string(g))
	return !errors.Is(err, fs.ErrNotExist)
}

// Processes are the PIDs of the group's processes and of those in groups below it. Those of a PID namespace that
// cannot be seen here are left out. The error is that of a group that is not there.
func (g Group) Processes() ([]int, error) {
	if _, err := os.Lstat(string(g)); err != nil {
		return nil, err
	}
	var pids []int
	_ = filepath.WalkDir(string(g), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // a group that was removed meanwhile has no processes
		}
		data, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		for word := range strings.FieldsSeq(string(data)) {
			if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids, nil
}

// killFile is the file of a group in cgroup2 that kills all in it (Linux 5.14).
const killFile = "cgroup.kill"

// KillFile is the path of the file by which the kernel kills all that is in the group, "" if it has none.
func (g Group) KillFile() string {
	path := filepath.Join(string(g), killFile)
	if unix.Access(path, unix.W_OK) != nil {
		return ""
	}
	return path
}

// Signal sends SIGKILL to all processes of the group and of those below it, and does not wait. A group that is not
// there is fine.
func (g Group) Signal() error {
	f, err := os.OpenFile(filepath.Join(string(g), killFile), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString("1")
		err = errors.Join(err, f.Close())
	}
	if err == nil || !g.Exists() {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("kill the processes of cgroup %s: %w", g, err)
	}
	// Before Linux 5.14, and in version 1. A process that is born meanwhile is met by the caller's next call.
	pids, _ := g.Processes()
	for _, pid := range pids {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	return nil
}

// Kill kills the processes of a group of cgroup2 and of those below it, waits until all have ended, and removes the
// group. A group that is not there is fine. When ctx ends, the error names the processes that have not ended.
func (g Group) Kill(ctx context.Context) error {
	const look = 100 * time.Millisecond // between two looks at ctx
	for g.Exists() {
		names := g.Names()
		if err := g.Signal(); err != nil {
			return err
		}
		empty, err := g.Wait(look)
		if err != nil {
			return err
		}
		if empty {
			if err := g.Remove(); err == nil || !errors.Is(err, unix.EBUSY) {
				return err
			}
		}
		if ctx.Err() != nil {
			if len(names) == 0 {
				names = g.Names()
			}
			return fmt.Errorf("cgroup %s: processes do not end (%s): %w", g, Brief(names), ctx.Err())
		}
	}
	return nil
}

// Wait waits until the group of cgroup2 and those below it have no process that lives, or until the time is over. A
// zombie does not live (cgroups(7)).
func (g Group) Wait(timeout time.Duration) (empty bool, err error) {
	f, err := os.Open(filepath.Join(string(g), "cgroup.events"))
	if err != nil {
		return gone(err), ignoreGone(err)
	}
	defer func() { _ = f.Close() }()
	deadline := time.Now().Add(timeout)
	buf := make([]byte, 256)
	for {
		n, err := f.ReadAt(buf, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return gone(err), ignoreGone(err)
		}
		if bytes.Contains(buf[:n], []byte("populated 0")) {
			return true, nil
		}
		left := time.Until(deadline)
		if left <= 0 {
			return false, nil
		}
		// The kernel signals a change of the file as an exceptional event.
		fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(fds, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return false, fmt.Errorf("wait for cgroup %s: %w", g, err)
		}
	}
}

// gone recognizes a group that was removed meanwhile: ENOENT for its directory, ENODEV for a file that is still open.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}

func ignoreGone(err error) error {
	if gone(err) {
		return nil
	}
	return err
}

// Names describes the group's processes for error texts: "sleep[17]", and which of them are in uninterruptible sleep.
func (g Group) Names() []string {
	pids, _ := g.Processes()
	var names []string
	for _, pid := range pids {
		name := "?"
		if stat, err := proc.ReadStat(pid); err == nil {
			name = stat.Name
			if stat.State == 'D' {
				name = fmt.Sprintf("%s[%d] in uninterruptible sleep", name, pid)
				names = append(names, name)
				continue
			}
		}
		names = append(names, fmt.Sprintf("%s[%d]", name, pid))
	}
	return names
}

// Brief joins at most eight names.
func Brief(names []string) string {
	const most = 8
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}

// FreezingGroup is the group of a process in the version 1 freezer if that or one above it is frozen, else "".
func (h *Hierarchies) FreezingGroup(pid int) Group {
	freezer := h.Mount("freezer")
	if freezer == "" {
		return ""
	}
	list, err := Of(pid)
	if err != nil {
		return ""
	}
	path := In(list, "freezer")
	if path == "" || path == "/" {
		return ""
	}
	group := filepath.Join(freezer, path)
	state, err := os.ReadFile(filepath.Join(group, "freezer.state"))
	if err != nil || strings.TrimSpace(string(state)) == "THAWED" {
		return ""
	}
	return Group(group)
}

// Unfreeze moves a process out of a frozen group of the version 1 freezer, into the hierarchy's root, which cannot be
// frozen. That helps whichever group above the process is frozen, and thaws no other process. In cgroup2 a frozen process
// takes SIGKILL. Whether it helped is to be looked for.
func (h *Hierarchies) Unfreeze(pid int) {
	if h.FreezingGroup(pid) == "" {
		return
	}
	_ = os.WriteFile(filepath.Join(h.Mount("freezer"), "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
}
