package pin

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// held is a child of this process in new namespaces, until kill. One goroutine uses it, on the
// locked thread that made it.
type held struct {
	pid   int // for /proc only, and only in procDir
	pidfd int
	proc  int // descriptor of /proc/PID, -1 until procDir
	// ended is called once, after the child has ended; may be nil.
	ended func()
}

func hold(kinds Kind) (*held, error) {
	pid, pidfd, err := cloneHeld(kinds.cloneFlags(), unix.Getpid())
	if err != nil {
		return nil, err
	}
	return &held{pid: pid, pidfd: pidfd, proc: -1}, nil
}

// alive fails if the child has ended. What was read from it before is right, but nothing more can
// be read.
func (h *held) alive() error {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PIDFD, h.pidfd, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, nil)
	if err != nil {
		return fmt.Errorf("waitid of the held child: %w", err)
	}
	if info.Signo != 0 { // zero if the child has not ended
		return errors.New("the held child has ended")
	}
	return nil
}

// procDir opens the child's directory in /proc. The descriptor is bound to the process, not to its
// number. If the child is alive after the open, the directory is the child's, and returns ESRCH
// after the child has ended.
func (h *held) procDir() (int, error) {
	if h.proc >= 0 {
		return h.proc, nil
	}
	dir := fmt.Sprintf("/proc/%d", h.pid)
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", dir, err)
	}
	if err := h.alive(); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	h.proc = fd
	return fd, nil
}

// writeMaps sets up the child's user namespace. Since it is written with CAP_SETGID in the parent,
// gid_map does not need setgroups to be denied.
func (h *held) writeMaps(m *Mappings) error {
	if err := h.writeMap("uid_map", m.UIDs); err != nil {
		return err
	}
	return h.writeMap("gid_map", m.GIDs)
}

func (h *held) writeMap(name string, lines []IDMap) error {
	dir, err := h.procDir()
	if err != nil {
		return err
	}
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	defer unix.Close(fd) //nolint:errcheck // the write has returned any error
	_, err = unix.Write(fd, mapText(lines))
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("write %s: %w (needs CAP_SETUID and CAP_SETGID, and all host IDs mapped in this user namespace)", name, err)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// namespace opens one of the child's namespaces.
func (h *held) namespace(info kindInfo) (*Namespace, error) {
	fd, err := unix.IoctlRetInt(h.pidfd, info.pidfd)
	// ENOTTY: before Linux 6.11 a pidfd has no such ioctl.
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) {
		return h.namespaceFromProc(info)
	}
	if err != nil {
		return nil, fmt.Errorf("%s namespace from the pidfd: %w", info.name, err)
	}
	return newNamespace(fd, info.kind)
}

func (h *held) namespaceFromProc(info kindInfo) (*Namespace, error) {
	dir, err := h.procDir()
	if err != nil {
		return nil, err
	}
	fd, err := unix.Openat(dir, "ns/"+info.proc, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open ns/%s: %w", info.proc, err)
	}
	return newNamespace(fd, info.kind)
}

// kill kills and reaps the child and closes the descriptors of h. Until then the child keeps its
// namespaces alive.
func (h *held) kill() error {
	defer func() {
		_ = unix.Close(h.pidfd)
		if h.proc >= 0 {
			_ = unix.Close(h.proc)
		}
		if h.ended != nil {
			h.ended()
		}
	}()
	// ESRCH: it has ended already.
	err := unix.PidfdSendSignal(h.pidfd, unix.SIGKILL, nil, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill the held child: %w", err)
	}
	for {
		err = unix.Waitid(unix.P_PIDFD, h.pidfd, nil, unix.WEXITED|unix.WALL, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		// ECHILD: another part of this process waits for all children, with __WALL, and has reaped
		// this one.
		case err == nil, errors.Is(err, unix.ECHILD):
			return nil
		default:
			return fmt.Errorf("reap the held child: %w", err)
		}
	}
}
