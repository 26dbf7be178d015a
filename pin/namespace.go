package pin

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A Namespace holds one namespace open with a descriptor, which it owns. The namespace lives at
// least that long. The garbage collector closes a Namespace that was not closed; see TraceLeaks.
type Namespace struct {
	kind     Kind
	dev, ino uint64
	h        *handle
}

// handle is the part that the garbage collector's cleanup needs. So it must not point back to its
// Namespace.
type handle struct {
	created string // stack of the caller that made it, if leaks are traced

	mu      sync.Mutex
	fd      int  // -1 once closed or disowned
	lent    int  // running WithFD calls; the last one closes fd if closing is set
	closing bool // no new calls of WithFD
}

// newNamespace owns fd from the call on, even if it fails.
func newNamespace(fd int, kind Kind) (*Namespace, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("fstat of a %s namespace: %w", kind, err)
	}
	n := &Namespace{kind: kind, dev: st.Dev, ino: st.Ino, h: &handle{fd: fd}}
	if leakReport.Load() != nil {
		n.h.created = string(debug.Stack())
	}
	runtime.AddCleanup(n, (*handle).collect, n.h)
	return n, nil
}

// Kind returns the one kind of the namespace.
func (n *Namespace) Kind() Kind { return n.kind }

// ID identifies the namespace among all that exist now: the device and inode numbers of
// namespaces(7). The kernel uses an inode number again after a namespace has ended.
func (n *Namespace) ID() (dev, ino uint64) { return n.dev, n.ino }

// Same reports whether both are the same namespace. Both may be closed. Then the caller has to know
// that the first was alive when the second was opened.
func (n *Namespace) Same(other *Namespace) bool {
	return other != nil && n.dev == other.dev && n.ino == other.ino
}

// Owner returns the user namespace that owns the namespace; for a user namespace, its parent. The
// caller closes it. It fails with EPERM if the owner is neither the caller's user namespace nor
// below it.
func (n *Namespace) Owner() (*Namespace, error) {
	var owner *Namespace
	err := n.WithFD(func(fd int) error {
		ownerFD, err := unix.IoctlRetInt(fd, unix.NS_GET_USERNS)
		if err != nil {
			return fmt.Errorf("NS_GET_USERNS: %w", err)
		}
		owner, err = newNamespace(ownerFD, User)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("owner of %s: %w", n, err)
	}
	return owner, nil
}

// OwnerUID returns the user to whom the namespace is charged, in the caller's user namespace: the
// owner of the user namespace. For another kind it is the owner of the user namespace that owns it.
func (n *Namespace) OwnerUID() (uint32, error) {
	if n.kind != User {
		owner, err := n.Owner()
		if err != nil {
			return 0, err
		}
		defer func() { _ = owner.Close() }()
		return owner.OwnerUID()
	}
	var uid uint32
	err := n.WithFD(func(fd int) error {
		var err error
		uid, err = unix.IoctlGetUint32(fd, unix.NS_GET_OWNER_UID)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("owner of %s: NS_GET_OWNER_UID: %w", n, err)
	}
	return uid, nil
}

// String returns kind and inode number, as in "net:[4026532008]".
func (n *Namespace) String() string { return fmt.Sprintf("%s:[%d]", n.kind, n.ino) }

// WithFD calls fn with the descriptor. fn must neither close nor keep it. The descriptor is
// close-on-exec. It stays open until fn returns, even if fn or another goroutine calls Close
// meanwhile. WithFD returns fn's error, or ErrClosed.
func (n *Namespace) WithFD(fn func(fd int) error) error {
	fd, err := n.h.lend()
	if err != nil {
		return fmt.Errorf("%s: %w", n, err)
	}
	defer n.h.giveBack()
	return fn(fd)
}

// Disown returns the descriptor, which the caller now has to close, and leaves the Namespace
// closed. It returns -1 and changes nothing if the Namespace is closed or WithFD is running.
func (n *Namespace) Disown() int {
	n.h.mu.Lock()
	defer n.h.mu.Unlock()
	if n.h.closing || n.h.lent > 0 {
		return -1
	}
	fd := n.h.fd
	n.h.fd, n.h.closing = -1, true
	return fd
}

// Close closes the descriptor. The namespace ends if nothing else keeps it. It may be called any
// number of times, on nil, too, and always returns nil.
func (n *Namespace) Close() error {
	if n != nil {
		n.h.close()
	}
	return nil
}

func (h *handle) lend() (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closing {
		return -1, ErrClosed
	}
	h.lent++
	return h.fd, nil
}

func (h *handle) giveBack() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lent--
	h.closeIfIdle()
}

// close reports whether this was the first call.
func (h *handle) close() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closing {
		return false
	}
	h.closing = true
	h.closeIfIdle()
	return true
}

// closeIfIdle is called with mu held. close(2) of a namespace file returns no error that a caller
// could handle.
func (h *handle) closeIfIdle() {
	if h.closing && h.lent == 0 && h.fd >= 0 {
		_ = unix.Close(h.fd)
		h.fd = -1
	}
}

// collect is called when the Namespace is unreachable.
func (h *handle) collect() {
	if !h.close() {
		return
	}
	if report := leakReport.Load(); report != nil && h.created != "" {
		(*report)(h.created)
	}
}

var leakReport atomic.Pointer[func(created string)]

// TraceLeaks records from now on where each Namespace is made. If one is garbage collected without
// Close or Disown, report is called with that stack, from a goroutine of the runtime. It is for
// tests. A nil report turns it off. There is one setting for the process.
func TraceLeaks(report func(created string)) {
	if report == nil {
		leakReport.Store(nil)
		return
	}
	leakReport.Store(&report)
}
