// Package descriptor has what pinder needs of file descriptors: to wait on them, to duplicate and to close them.
package descriptor

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Handle is one descriptor. File and Raw are set for one that is waited on; File owns FD then.
type Handle struct {
	FD   int
	File *os.File
	Raw  syscall.RawConn
}

// Pollable makes a handle whose Raw.Read waits without a thread of its own.
func Pollable(fd int, name string) (*Handle, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &Handle{FD: fd, File: f, Raw: raw}, nil
}

// Close closes the descriptor, and wakes what waits on it.
func (h *Handle) Close() {
	if h.File != nil {
		_ = h.File.Close()
		return
	}
	_ = unix.Close(h.FD)
}

// CloseAll closes descriptors.
func CloseAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// KeepOnExec says whether a descriptor stays open in a program that this process becomes or starts.
func KeepOnExec(fd int, keep bool) error {
	flag := unix.FD_CLOEXEC
	if keep {
		flag = 0
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, flag)
	return err
}

// Duplicate is another descriptor of the same file. It is above the numbers that a supervisor is started with.
func Duplicate(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 6) }

// DuplicateAll is Duplicate for several; none is open after an error.
func DuplicateAll(fds []int) ([]int, error) {
	out := make([]int, 0, len(fds))
	for _, fd := range fds {
		d, err := Duplicate(fd)
		if err != nil {
			CloseAll(out)
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}
