package pin

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// owner is the user and group of a new user namespace, in the caller's user namespace. The kernel
// takes the effective IDs of the thread that calls clone3 (create_user_ns in
// kernel/user_namespace.c). For the namespace's whole life it charges per-user limits to that user:
// inotify instances, namespaces, pending signals, message queues, locked memory. A namespace that
// root owns uses root's limits.
type owner struct{ uid, gid uint32 }

// rootOf is the user and group that the mappings make root of the namespace. Validate has checked
// that ID 0 is mapped.
func rootOf(m *Mappings) owner {
	uid, _ := m.HostUID(0)
	gid, _ := m.HostGID(0)
	return owner{uid, gid}
}

// credentials are those of a thread that become changes. Real and saved IDs stay: the saved ones
// let the thread change back, and signals and limits use the real ones.
type credentials struct {
	euid, egid int
	caps       [2]unix.CapUserData
}

// become makes o the effective user and group of the calling thread only. The thread keeps its
// capabilities. The caller has locked the thread, and calls restore. After an error the thread is
// as before.
//
// unix.Setresuid cannot be used: it changes all threads of the process.
func (o owner) become() (c *credentials, err error) {
	_, euid, suid := unix.Getresuid()
	_, egid, sgid := unix.Getresgid()
	if euid != suid || egid != sgid {
		return nil, fmt.Errorf("effective user %d:%d, saved %d:%d: the thread could not change back: %w", euid, egid, suid, sgid, unix.EPERM)
	}
	c = &credentials{euid: euid, egid: egid}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&header, &c.caps[0]); err != nil {
		return nil, fmt.Errorf("capget: %w", err)
	}
	// The group comes first: the change of the user takes away the capabilities that it needs.
	if err := setEffectiveGID(int(o.gid)); err != nil {
		return nil, err
	}
	if err := setEffectiveUID(int(o.uid)); err != nil {
		return nil, errors.Join(err, c.restore())
	}
	// If the user changes from 0, the kernel clears the effective set, but not the permitted one
	// (capabilities(7), "Effect of user ID changes"). Some kernels let only privileged threads make
	// user namespaces. If the kernel refuses this call, clone3 will return the error.
	raised := c.caps
	for i := range raised {
		raised[i].Effective = raised[i].Permitted
	}
	_ = unix.Capset(&header, &raised[0])
	return c, nil
}

// errNotRestored is in the error if a thread did not get all its credentials back.
var errNotRestored = errors.New("the thread's credentials could not be restored")

// restore gives the thread its own credentials back. It may be repeated.
func (c *credentials) restore() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	err := errors.Join(setEffectiveUID(c.euid), setEffectiveGID(c.egid))
	if e := unix.Capset(&header, &c.caps[0]); e != nil {
		err = errors.Join(err, fmt.Errorf("capset: %w", e))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errNotRestored, err)
	}
	return nil
}

const unchanged = ^uintptr(0) // (uid_t)-1

func setEffectiveUID(uid int) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, unchanged, uintptr(uid), unchanged); errno != 0 {
		return fmt.Errorf("setresuid %d: %w", uid, errno)
	}
	return nil
}

func setEffectiveGID(gid int) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, unchanged, uintptr(gid), unchanged); errno != 0 {
		return fmt.Errorf("setresgid %d: %w", gid, errno)
	}
	return nil
}

// hold makes a held child whose user namespace belongs to o. If restored is false, the calling
// thread must run nothing else and end.
func (o owner) hold(kinds Kind) (h *held, restored bool, err error) {
	memory.enter()
	defer func() {
		if h == nil {
			memory.leave()
		}
	}()
	before, err := o.become()
	if err != nil {
		return nil, !errors.Is(err, errNotRestored), err
	}
	if err = hide(); err == nil {
		if h, err = hold(kinds); err != nil {
			err = explainClone(err, kinds)
		}
	}
	restored = true
	if e := before.restore(); e != nil {
		restored, err = false, errors.Join(err, e)
	}
	err = errors.Join(err, hide())
	if h == nil || err == nil {
		if h != nil {
			h.ended = memory.leave
		}
		return h, restored, err
	}
	err = errors.Join(err, h.kill())
	return nil, restored, err
}

// hide makes this process not dumpable. Every change of a thread's credentials sets dumpable to
// fs.suid_dumpable.
func hide() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("PR_SET_DUMPABLE: %w", err)
	}
	return nil
}

// shield protects this process's memory, which held children share, from the owners of their
// namespaces. A process of that user, outside of all user namespaces, has every capability over the
// child, including ptrace(2). These do not apply to a process that is not dumpable (PR_SET_DUMPABLE
// of prctl(2)).
type shield struct {
	mu       sync.Mutex
	children int
	before   int
}

var memory shield

// enter is called before credentials change, leave after the child has ended. The last leave
// restores the process.
func (s *shield) enter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.children == 0 {
		s.before, _ = unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	}
	s.children++
}

func (s *shield) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.children--; s.children == 0 {
		// 2, which fs.suid_dumpable can be, cannot be set; 0 is as strict.
		_ = unix.Prctl(unix.PR_SET_DUMPABLE, uintptr(s.before&1), 0, 0, 0)
	}
}
