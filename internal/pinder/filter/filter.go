// Package filter gets the seccomp program that the OCI runtime gave a container's init, from the kernel. So a direct
// exec has the runtime's own program, whatever compiled it.
//
// A tracer reads it: a child that is a list of system calls (package spawn). It is a process of its own, so that no
// wait of pinder's sees the init stopped. A thread of the init stands still for that moment, one that does not notice it. The tracer does not let it go by a call,
// but ends: then a signal that was on its way is still delivered (kernel/signal.c, ptrace_signal).
//
// The package uses only the standard library and golang.org/x/sys.
package filter

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/spawn"
)

// Memory is how many bytes a list needs for a question.
const Memory = maxProgram + 4096

// maxProgram is the kernel's limit: BPF_MAXINSNS instructions of 8 bytes (include/linux/filter.h).
const maxProgram = 4096 * 8

// ErrNone says that the process has no filter, or none yet: a runtime installs it just before it executes the program.
var ErrNone = errors.New("the process has no seccomp filter")

// Question is what a tracer finds out.
type Question struct {
	list    *spawn.List
	wait    spawn.Call
	count   spawn.Call
	program []byte
	meta    []byte
}

// Ask adds the calls to an empty list of Memory bytes. They seize the process, wait until it stands still, and read its
// first filter: those that it has installed itself come later (kernel/seccomp.c, get_nth_filter).
func Ask(l *spawn.List, pid int) *Question {
	q := &Question{list: l}
	const all = ^uintptr(0) // -1: any child; a tracer has no other
	meta, b := l.Buffer(16) // struct seccomp_metadata: the filter's number, its flags
	q.meta = b
	program, b := l.Buffer(maxProgram)
	q.program = b
	target := uintptr(pid)
	l.Call("trace the init", unix.SYS_PTRACE, unix.PTRACE_SEIZE, target, 0, 0)
	l.Call("stop the init", unix.SYS_PTRACE, unix.PTRACE_INTERRUPT, target, 0, 0)
	q.wait = l.Call("wait until the init stands still", unix.SYS_WAIT4, all, 0, unix.WALL, 0).Want(target)
	l.Call("read the filter's flags", unix.SYS_PTRACE, unix.PTRACE_SECCOMP_GET_METADATA, target, 16, meta)
	q.count = l.Call("read the filter", unix.SYS_PTRACE, unix.PTRACE_SECCOMP_GET_FILTER, target, 0, program)
	return q
}

// Answer returns the program as the kernel reads it, and its flags of seccomp(2) as far as the kernel tells them
// (SECCOMP_FILTER_FLAG_LOG). It is to be asked for when the tracer has ended.
func (q *Question) Answer() (program []byte, flags uintptr, err error) {
	if f := q.list.Failure(); f != nil {
		// EINVAL: there is none at all; ENOENT: there is no first one (kernel/seccomp.c, get_nth_filter).
		if f.Index > q.wait.Index() && (errors.Is(f, unix.EINVAL) || errors.Is(f, unix.ENOENT)) {
			return nil, 0, ErrNone
		}
		return nil, 0, f
	}
	n, _, done := q.count.Result()
	if !done {
		return nil, 0, errors.New("the tracer has ended too early")
	}
	if n == 0 || n > maxProgram/8 {
		return nil, 0, fmt.Errorf("the filter has %d instructions", n)
	}
	program = append([]byte(nil), q.program[:8*n]...)
	return program, uintptr(binary.NativeEndian.Uint64(q.meta[8:])), nil
}

// Notifies reports whether a program can ask another process (SECCOMP_RET_USER_NOTIF): whoever installs it gets a
// descriptor that has to be given to that one. A result that is computed counts, too.
func Notifies(program []byte) bool {
	const code, action = 0x06, 0xffff0000 // BPF_RET|BPF_K; SECCOMP_RET_ACTION_FULL
	for at := 0; at+8 <= len(program); at += 8 {
		op, k := binary.NativeEndian.Uint16(program[at:]), binary.NativeEndian.Uint32(program[at+4:])
		if op&7 == code && (op != code || k&action == unix.SECCOMP_RET_USER_NOTIF) {
			return true
		}
	}
	return false
}
