package reaper

import (
	"encoding/json"
	"fmt"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
	"github.com/pinfold-run/pinfold/internal/pinder/link"
	"github.com/pinfold-run/pinfold/internal/pinder/program"
)

// table is what a reaper leaves to the next program of the same process. All descriptors keep their numbers.
type table struct {
	Listen     int      `json:"listen"`
	Lock       int      `json:"lock"`
	Link       int      `json:"link"` // -1: no supervisor
	Supervisor int      `json:"supervisor,omitempty"`
	Seq        uint32   `json:"seq,omitempty"` // the OpExec to be answered
	Objects    []Object `json:"objects,omitempty"`
}

// Object is what is held of one container or exec.
type Object struct {
	Key   string `json:"key"`
	Kinds string `json:"kinds"` // comma separated, one for each descriptor
	FDs   []int  `json:"fds"`
}

func (t *table) fds() []int {
	all := []int{t.Listen, t.Lock}
	if t.Link >= 0 {
		all = append(all, t.Link)
	}
	for _, o := range t.Objects {
		all = append(all, o.FDs...)
	}
	return all
}

// TakePlace makes this process, a supervisor whose reaper is dead, a reaper that has all descriptors. It returns only
// on error, and then nothing has changed.
func TakePlace(dir string, objects []Object) error {
	return become("/proc/self/exe", dir, &table{Listen: link.FDListen, Lock: link.FDLock, Link: -1, Objects: objects})
}

// become replaces this program by the reaper in binary. It returns only on error, and then nothing has changed.
func become(binary, dir string, t *table) error {
	b, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("hand over: %w", err)
	}
	fd, err := unix.MemfdCreate("pinder-table", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("hand over: memfd_create: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	if n, err := unix.Pwrite(fd, b, 0); err != nil || n != len(b) {
		return fmt.Errorf("hand over: write table: %d of %d bytes: %w", n, len(b), err)
	}
	// No child may be started now: it would get these descriptors and keep them over its exec, into a container.
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	all := append(t.fds(), fd)
	for i, f := range all {
		if err := descriptor.KeepOnExec(f, true); err != nil {
			for _, done := range all[:i] {
				_ = descriptor.KeepOnExec(done, false)
			}
			return fmt.Errorf("hand over: descriptor %d: %w", f, err)
		}
	}
	err = syscall.Exec(binary, []string{"pinder", "--state", dir, "--inherit", strconv.Itoa(fd)}, syscall.Environ())
	for _, f := range all {
		_ = descriptor.KeepOnExec(f, false)
	}
	return fmt.Errorf("execute %s: %w", binary, err)
}

// handOver is the reaper's part of an upgrade. The caller holds r.mu.
func (r *reaper) handOver(binary string, seq uint32) error {
	t := &table{Listen: r.listen, Lock: r.lock, Link: r.link.FD, Supervisor: r.pid, Seq: seq}
	for key, k := range r.store {
		t.Objects = append(t.Objects, Object{Key: key, Kinds: k.kinds, FDs: k.fds})
	}
	return become(binary, r.dir, t)
}

// Inherit is Run for a program that another reaper's process has become: fd is the memfd with the table.
func Inherit(dir string, fd int) error {
	t, err := readTable(fd)
	if err != nil {
		return err
	}
	for _, f := range t.fds() {
		if err := descriptor.KeepOnExec(f, false); err != nil {
			return fmt.Errorf("inherited descriptor %d: %w", f, err)
		}
	}
	r := &reaper{dir: dir, listen: t.Listen, lock: t.Lock, store: map[string]*kept{}}
	for _, o := range t.Objects {
		r.store[o.Key] = &kept{kinds: o.Kinds, fds: o.FDs}
	}
	if t.Link >= 0 {
		if r.link, err = link.NewConn(t.Link); err != nil {
			return err
		}
		r.pid = t.Supervisor
		r.link.Reply(link.Message{Seq: t.Seq}, 0)
	}
	return r.run()
}

func readTable(fd int) (*table, error) {
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("inherited table: %w", err)
	}
	b := make([]byte, st.Size)
	if _, err := unix.Pread(fd, b, 0); err != nil {
		return nil, fmt.Errorf("inherited table: %w", err)
	}
	t := &table{}
	if err := json.Unmarshal(b, t); err != nil {
		return nil, fmt.Errorf("inherited table: %w", err)
	}
	return t, nil
}

// spawn starts a supervisor.
func (r *reaper) spawn() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("start supervisor: socketpair: %w", err)
	}
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		_ = unix.Close(pair[0])
		_ = unix.Close(pair[1])
		return fmt.Errorf("start supervisor: %w", err)
	}
	pid := 0
	err = program.Execute("/proc/self/exe", func(path string) (err error) {
		pid, err = syscall.ForkExec(path, []string{"pinder", "supervise", "--state", r.dir}, &syscall.ProcAttr{
			Env:   syscall.Environ(),
			Files: []uintptr{uintptr(null), uintptr(null), 2, uintptr(pair[1]), uintptr(r.listen), uintptr(r.lock)},
		})
		return err
	})
	_ = unix.Close(null)
	_ = unix.Close(pair[1])
	if err != nil {
		_ = unix.Close(pair[0])
		return fmt.Errorf("start supervisor: %w", err)
	}
	l, err := link.NewConn(pair[0])
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pid, r.link = pid, l
	r.missed.Store(0)
	return err
}
