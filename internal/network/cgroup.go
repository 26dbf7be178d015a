package network

import (
	"bufio"
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
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// endTimeout bounds the wait for killed processes to be gone. Only one that is
// in uninterruptible sleep takes longer than milliseconds.
const endTimeout = 10 * time.Second

// finishTimeout is how long a plugin that an earlier daemon started may take to
// end by itself before it is ended.
const finishTimeout = 5 * time.Second

// leaveTimeout bounds the wait for a process that has been reaped to have left
// its group.
const leaveTimeout = time.Second

// cgroups makes, ends and removes the groups that plugins run in. A group is
// known by its name alone; nothing about it is kept in memory, because the
// process that made it may be gone.
type cgroups struct {
	root string // <cgroup2 mount>/<parent>, "" where there is no usable cgroup2
	// off is set when the kernel turns out to refuse CLONE_INTO_CGROUP.
	off atomic.Bool
}

func newCgroups(parent string) (*cgroups, error) {
	if !filepath.IsLocal(parent) || filepath.Clean(parent) == "." {
		return nil, invalid(fmt.Sprintf("network: cgroup parent %q is not the name of a group below the root", parent))
	}
	mount, err := cgroup2Mount("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	if mount == "" {
		return &cgroups{}, nil
	}
	g := &cgroups{root: filepath.Join(mount, parent)}
	// Probe by doing: a read-only or delegated-away hierarchy counts as none.
	if err := os.MkdirAll(g.root, 0o755); err != nil {
		return &cgroups{}, nil
	}
	g.removeRoot()
	return g, nil
}

// cgroup2Mount finds where the cgroup2 hierarchy is mounted; "" is nowhere. A
// mount below /sys/fs/cgroup is preferred to a copy elsewhere.
func cgroup2Mount(mountinfo string) (string, error) {
	f, err := os.Open(mountinfo)
	if err != nil {
		return "", fmt.Errorf("find the cgroup2 mount: %w", err)
	}
	defer f.Close()
	var found string
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		// proc_pid_mountinfo(5): optional fields end with "-", then the type.
		before, after, ok := strings.Cut(s.Text(), " - ")
		fields := strings.Fields(before)
		if !ok || len(fields) < 5 || !strings.HasPrefix(after, "cgroup2 ") {
			continue
		}
		path := unescape(fields[4])
		if path == "/sys/fs/cgroup" || strings.HasPrefix(path, "/sys/fs/cgroup/") {
			return path, nil
		}
		if found == "" {
			found = path
		}
	}
	if err := s.Err(); err != nil {
		return "", fmt.Errorf("find the cgroup2 mount: %w", err)
	}
	return found, nil
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

func (g *cgroups) usable() bool { return g.root != "" && !g.off.Load() }

// open makes the group if need be and opens it for CLONE_INTO_CGROUP. It gives
// nil where there are no groups. The caller closes the file.
func (g *cgroups) open(name string) (*os.File, error) {
	if !g.usable() {
		return nil, nil
	}
	dir := filepath.Join(g.root, name)
	// Another daemon that shares the parent removes it whenever it is empty,
	// so it can vanish between any two of these calls. Each round that fails
	// so means that another daemon got something done; 100 is never reached.
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

// kill ends every process in the group without waiting, and lists them.
func (g *cgroups) kill(name string) ([]string, error) {
	if g.root == "" {
		return nil, nil
	}
	dir := filepath.Join(g.root, name)
	procs := g.processes(dir)
	err := write1(filepath.Join(dir, "cgroup.kill"))
	if err == nil || !exists(dir) {
		return procs, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return procs, fmt.Errorf("end the processes of cgroup %s: %w", dir, err)
	}
	// Before Linux 5.14 (commit 661ee6281892) there is no cgroup.kill. The
	// caller repeats this until the group is empty, so a fork that slips
	// through one pass is met in the next.
	for _, pid := range readPids(dir) {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	return procs, nil
}

func write1(file string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("1")
	return errors.Join(err, f.Close())
}

// end kills what is in the group, waits until it is gone, and removes the
// group and, when that is empty, the parent. A group that is not there is no
// error. The wait ends with ctx or after endTimeout, with an error that lists
// what does not die.
func (g *cgroups) end(ctx context.Context, name string) error {
	if g.root == "" {
		return nil
	}
	defer g.removeRoot()
	dir := filepath.Join(g.root, name)
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	for {
		if !exists(dir) {
			return nil
		}
		procs, err := g.kill(name)
		if err != nil {
			return err
		}
		empty, err := waitEmpty(dir, 100*time.Millisecond)
		if err != nil {
			return err
		}
		if empty {
			err := removeTree(dir)
			if err == nil || !errors.Is(err, unix.EBUSY) {
				return err
			}
		}
		if ctx.Err() != nil {
			if len(procs) == 0 {
				procs = g.processes(dir)
			}
			return fmt.Errorf("cgroup %s: processes do not end (%s): %w", dir, brief(procs), ctx.Err())
		}
	}
}

// settle waits until nothing runs in the group any more, but not for longer
// than patience, nor beyond ctx.
func (g *cgroups) settle(ctx context.Context, name string, patience time.Duration) {
	if g.root == "" {
		return
	}
	const step = 100 * time.Millisecond // between two looks at ctx
	for end := time.Now().Add(patience); time.Now().Before(end) && ctx.Err() == nil; {
		if empty, err := waitEmpty(filepath.Join(g.root, name), step); empty || err != nil {
			return
		}
	}
}

// leave removes the group if it is empty, and says what is left in it if not.
func (g *cgroups) leave(name string) []string {
	if g.root == "" {
		return nil
	}
	defer g.removeRoot()
	dir := filepath.Join(g.root, name)
	for {
		if err := removeTree(dir); err == nil {
			return nil
		}
		if procs := g.processes(dir); len(procs) > 0 {
			return procs
		}
		// A process that is dead and reaped can hold its group for a moment
		// longer (since Linux 6.19 until it has been switched out).
		if empty, err := waitEmpty(dir, leaveTimeout); !empty || err != nil {
			return []string{"a process that is ending"}
		}
	}
}

// removeRoot removes the parent unless something is in it.
func (g *cgroups) removeRoot() { _ = unix.Rmdir(g.root) }

// processes lists the group's processes as "name[pid]", D-state marked, for
// error texts.
func (g *cgroups) processes(dir string) []string {
	var out []string
	for _, pid := range readPids(dir) {
		name := "?"
		var mark string
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
			open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
			if open >= 0 && end > open {
				name = string(stat[open+1 : end])
				if bytes.HasPrefix(stat[end+1:], []byte(" D")) {
					mark = " in uninterruptible sleep"
				}
			}
		}
		out = append(out, fmt.Sprintf("%s[%d]%s", name, pid, mark))
	}
	return out
}

func readPids(dir string) []int {
	var pids []int
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		data, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		for _, line := range strings.Fields(string(data)) {
			// 0 is a process of a pid namespace that cannot be seen here.
			if pid, err := strconv.Atoi(line); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

// waitEmpty waits until the group has no live process (zombies do not count:
// cgroups(7)) or the time is over.
func waitEmpty(dir string, timeout time.Duration) (bool, error) {
	f, err := os.Open(filepath.Join(dir, "cgroup.events"))
	if err != nil {
		return gone(err), ignoreGone(err)
	}
	defer f.Close()
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
			return false, fmt.Errorf("wait for cgroup %s: %w", dir, err)
		}
	}
}

// removeTree removes a group and the groups a plugin made below it.
func removeTree(dir string) error {
	err := unix.Rmdir(dir)
	if err == nil || gone(err) {
		return nil
	}
	entries, rerr := os.ReadDir(dir)
	if rerr != nil {
		return ignoreGone(rerr)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !gone(err) {
		return fmt.Errorf("remove cgroup %s: %w", dir, err)
	}
	return nil
}

// gone says that a group was removed under our feet: ENOENT for its directory,
// ENODEV for a file that is still open.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}

func ignoreGone(err error) error {
	if gone(err) {
		return nil
	}
	return err
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// brief joins at most eight names.
func brief(names []string) string {
	const most = 8
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}
