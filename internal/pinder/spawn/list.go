package spawn

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What a call's result means: bits of entry.flags, known to the assembly.
const (
	flagSoft  = 1 << iota // a failure does not end the list
	flagExact             // the result must be entry.want
	flagByte              // no system call: the byte at args[0] must be args[1]
	flagWord              // no system call: the 64-bit word at args[0] must be args[1]
	flagIf                // entry.after names a call that must have succeeded, not failed
)

// entry is one call. The assembly knows the order of its words, all of 64 bits.
type entry struct {
	number uintptr
	args   [6]uintptr
	flags  uintptr
	result uintptr // written by the child
	into   uintptr // the result is copied to this address, if it is set
	after  uintptr // the call is made only if the result at this address is an error, or with flagIf none; 0: always
	want   uintptr
	first  uintptr // the first argument is the word at this address, if it is set
}

// notDone is the result of a call that was not made.
const notDone = uintptr(1) << 63

// maxErrno: results from -maxErrno to -1 are errors, in every architecture of Linux.
const maxErrno = 4095

// List is a list of system calls, with the memory that they read and write. One goroutine uses it.
type List struct {
	mem   []byte // shared with the child
	calls []entry
	names []string
	used  int // bytes of mem
}

// MaxCalls is how many calls a list can have.
const MaxCalls = 512

// ErrTooLarge says that a list needs more calls or memory than it was made for.
var ErrTooLarge = errors.New("the list of system calls is too large")

// NewList makes an empty list with so many bytes for strings and buffers. Close gives its memory back.
func NewList(bytes int) (*List, error) {
	table := MaxCalls * int(unsafe.Sizeof(entry{}))
	if bytes < 0 || bytes > math.MaxInt32 {
		return nil, ErrTooLarge
	}
	mem, err := unix.Mmap(-1, 0, table+bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("memory for a list of system calls: %w", err)
	}
	return &List{mem: mem, used: table, calls: unsafe.Slice((*entry)(unsafe.Pointer(&mem[0])), MaxCalls)[:0]}, nil
}

// Close gives the memory back. No child may use the list any more.
func (l *List) Close() {
	if l.mem != nil {
		_ = unix.Munmap(l.mem)
		l.mem, l.calls = nil, nil
	}
}

// Call is one call of a list.
type Call struct {
	list  *List
	index int
}

// Call adds a call, which must succeed. The name is for errors: what the call does, "set the user ID". Addresses among
// the arguments are those that Bytes, String and Strings return. A list that is full stays as it is; Start says so.
func (l *List) Call(name string, number uintptr, args ...uintptr) Call {
	return l.add(name, 0, number, args)
}

// Byte adds a check: the byte at the address must be want, or the list ends there.
func (l *List) Byte(name string, address uintptr, want byte) {
	l.add(name, flagByte, 0, []uintptr{address, uintptr(want)})
}

// Word adds a check of the 64-bit word at the address.
func (l *List) Word(name string, address uintptr, want uint64) {
	l.add(name, flagWord, 0, []uintptr{address, uintptr(want)})
}

func (l *List) add(name string, flags, number uintptr, args []uintptr) Call {
	n := len(l.names)
	l.names = append(l.names, name)
	if n < MaxCalls {
		l.calls = l.calls[:n+1]
		l.calls[n] = entry{number: number, flags: flags, result: notDone}
		copy(l.calls[n].args[:], args)
	}
	return Call{l, n}
}

func (c Call) entry() *entry {
	if c.index >= MaxCalls {
		return new(entry) // Start refuses the list
	}
	return &c.list.calls[c.index]
}

// Index is the call's place in the list, as in Error.
func (c Call) Index() int { return c.index }

// Soft says that the list goes on if the call fails.
func (c Call) Soft() Call {
	c.entry().flags |= flagSoft
	return c
}

// Want says that the result must be this one.
func (c Call) Want(result uintptr) Call {
	e := c.entry()
	e.flags, e.want = e.flags|flagExact, result
	return c
}

// From says that the first argument is the result of an earlier call.
func (c Call) From(earlier Call) Call {
	c.entry().first = earlier.result()
	return c
}

// Store says that the result is written at an address of the list's memory, as a 64-bit word.
func (c Call) Store(address uintptr) Call {
	c.entry().into = address
	return c
}

// Unless says that the call is left out if an earlier one has succeeded.
func (c Call) Unless(earlier Call) Call {
	c.entry().after = earlier.result()
	return c
}

// If says that the call is made only if an earlier one has succeeded.
func (c Call) If(earlier Call) Call {
	e := c.entry()
	e.flags, e.after = e.flags|flagIf, earlier.result()
	return c
}

// result is the address of the result.
func (c Call) result() uintptr { return uintptr(unsafe.Pointer(&c.entry().result)) }

// Result returns what the call returned, or its error. done is false if it was not made.
func (c Call) Result() (result uintptr, errno unix.Errno, done bool) {
	r := c.entry().result
	switch {
	case r == notDone:
		return 0, 0, false
	case failed(r):
		return 0, unix.Errno(-r), true
	}
	return r, 0, true
}

func failed(result uintptr) bool { return result > ^uintptr(0)-maxErrno }

// Bytes copies b into the list's memory and returns its address there, aligned to 8 bytes. Fresh memory is zero.
func (l *List) Bytes(b []byte) uintptr {
	at := (l.used + 7) &^ 7
	if at+len(b) > len(l.mem) {
		l.used = len(l.mem) + 1 // Start refuses the list
		return 0
	}
	copy(l.mem[at:], b)
	l.used = at + len(b)
	return uintptr(unsafe.Pointer(unsafe.SliceData(l.mem[at:])))
}

// Buffer returns the address of so many zero bytes, and the bytes themselves.
func (l *List) Buffer(n int) (address uintptr, b []byte) {
	address = l.Bytes(make([]byte, n))
	if address == 0 {
		return 0, make([]byte, n)
	}
	return address, l.mem[l.used-n : l.used]
}

// String copies s with a NUL byte behind it.
func (l *List) String(s string) uintptr { return l.Bytes(append([]byte(s), 0)) }

// Strings copies strings and returns the address of an array of their addresses with a zero at its end, as execve(2)
// needs it.
func (l *List) Strings(list []string) uintptr {
	array := make([]byte, 0, 8*(len(list)+1))
	for _, s := range list {
		array = l.Address(array, l.String(s))
	}
	return l.Bytes(l.Address(array, 0))
}

// Address appends an address to a buffer, for structures that have addresses in them.
func (l *List) Address(b []byte, address uintptr) []byte {
	return append(b, unsafe.Slice((*byte)(unsafe.Pointer(&address)), unsafe.Sizeof(address))...)
}

// Names are those of the calls and checks, in their order.
func (l *List) Names() []string { return slices.Clone(l.names) }

// complete reports that nothing was too much for the list.
func (l *List) complete() bool {
	return l.used <= len(l.mem) && len(l.names) <= MaxCalls && l.mem != nil
}

// Error is the call at which a list ended.
type Error struct {
	Name  string // of the call
	Index int
	Errno unix.Errno // 0: the result was not the one that was wanted
}

// Error says which call failed, and why.
func (e *Error) Error() string {
	if e.Errno == 0 {
		return e.Name + ": the result is not the expected one"
	}
	return e.Name + ": " + e.Errno.Error()
}

// Unwrap returns the errno.
func (e *Error) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

// Failure returns the call at which the child's list ended, nil if it was cut off or every call that had to succeed
// did. It is to be asked when the child has executed its program or has ended.
func (l *List) Failure() *Error {
	for i := range l.calls {
		e := &l.calls[i]
		if e.result == notDone || e.flags&flagSoft != 0 {
			continue
		}
		switch {
		case e.flags&(flagByte|flagWord) != 0:
			if e.result != e.args[1] {
				return &Error{Name: l.names[i], Index: i}
			}
		case e.flags&flagExact != 0 && e.result != e.want && !failed(e.result):
			return &Error{Name: l.names[i], Index: i}
		case failed(e.result):
			return &Error{Name: l.names[i], Index: i, Errno: unix.Errno(-e.result)}
		}
	}
	return nil
}
