package pin

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// owner is the user and group, by the caller's user namespace, that a new user namespace is to belong to. The kernel
// takes the effective ones of the thread that calls clone3 (create_user_ns in kernel/user_namespace.c), and charges
// to that user what is limited for each user, through all the namespace's life: inotify instances, namespaces,
// pending signals, message queues, locked memory. A namespace of root's takes from root.
type owner struct{ uid, gid uint32 }

// rootOf is the user and group that the mappings make root of the namespace. Validate has seen that ID 0 is mapped.
func rootOf(m *Mappings) owner {
	uid, _ := m.HostUID(0)
	gid, _ := m.HostGID(0)
	return owner{uid, gid}
}

// credentials are those of a thread that become changes. Real and saved IDs stay as they are: by the saved ones the
// thread comes back, and signals and limits go on to be those of the real user.
type credentials struct {
	euid, egid int
	caps       [2]unix.CapUserData
}

// become makes o the effective user and group of the calling thread alone, which keeps its capabilities. The caller
// has locked it, and calls restore. On an error the thread is as before.
//
// unix.Setresuid is of no use here: it changes all threads of the process.
func (o owner) become() (c *credentials, err error) {
	_, euid, suid := unix.Getresuid()
	_, egid, sgid := unix.Getresgid()
	if euid != suid || egid != sgid {
		return nil, fmt.Errorf("effective user %d:%d, saved %d:%d: the thread could not come back: %w", euid, egid, suid, sgid, unix.EPERM)
	}
	c = &credentials{euid: euid, egid: egid}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&header, &c.caps[0]); err != nil {
		return nil, fmt.Errorf("capget: %w", err)
	}
	// The group first: to change it needs the capabilities that the user's change takes.
	if err := setEffectiveGID(int(o.gid)); err != nil {
		return nil, err
	}
	if err := setEffectiveUID(int(o.uid)); err != nil {
		return nil, errors.Join(err, c.restore())
	}
	// Away from 0, the effective set is emptied, the permitted one is not (capabilities(7), "Effect of user ID
	// changes"). Some kernels let only privileged threads make user namespaces; a kernel that refuses this call
	// will say so at clone3.
	raised := c.caps
	for i := range raised {
		raised[i].Effective = raised[i].Permitted
	}
	_ = unix.Capset(&header, &raised[0])
	return c, nil
}

// errNotRestored is in the error of a thread that has not all of its credentials back.
var errNotRestored = errors.New("the thread's credentials could not be restored")

// restore may be repeated.
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

// hold makes a held child whose user namespace belongs to o. If restored is false, the calling thread must run
// nothing else and end.
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
	err = errors.Join(err, h.end())
	return nil, restored, err
}

// hide makes this process not dumpable. Every change of a thread's credentials sets that to fs.suid_dumpable.
func hide() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("PR_SET_DUMPABLE: %w", err)
	}
	return nil
}

// shield keeps this process's memory, which held children share, from the owners of their namespaces: a process of
// that user, outside of all user namespaces, has every capability over the child, ptrace(2) among them. Of a
// process that is not dumpable (PR_SET_DUMPABLE of prctl(2)) that counts for nothing.
type shield struct {
	mu       sync.Mutex
	children int
	before   int
}

var memory shield

// enter is called before credentials change, and leave when the child has ended; the last one to leave makes the
// process what it was.
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
		// 2, of fs.suid_dumpable, cannot be set; 0 is as strict.
		_ = unix.Prctl(unix.PR_SET_DUMPABLE, uintptr(s.before&1), 0, 0, 0)
	}
}
