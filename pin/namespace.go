package pin

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A Namespace holds one namespace open by one descriptor, which it owns. The
// namespace lives at least as long. A Namespace that is forgotten is closed by
// the garbage collector some time; see TraceLeaks.
type Namespace struct {
	kind     Kind
	dev, ino uint64
	h        *handle
}

// handle is the part that the garbage collector's cleanup needs, and so must
// not point back to its Namespace.
type handle struct {
	created string // stack of the maker, when leaks are traced

	mu      sync.Mutex
	fd      int  // -1 once closed or disowned
	lent    int  // running WithFD calls; the last one closes fd if closing is set
	closing bool // no new loans
}

// newNamespace takes ownership of fd, also when it fails.
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

// ID returns what identifies the namespace among all that exist now: the
// device and inode numbers of namespaces(7). The kernel uses inode numbers
// again once a namespace is gone.
func (n *Namespace) ID() (dev, ino uint64) { return n.dev, n.ino }

// Same reports whether both are one namespace. They may be closed, but then
// only the caller can know that neither namespace ended before the other one
// was opened.
func (n *Namespace) Same(other *Namespace) bool {
	return other != nil && n.dev == other.dev && n.ino == other.ino
}

// Owner returns the user namespace that the namespace belongs to; for a user
// namespace, its parent. The caller closes it. It fails with EPERM when the
// owner is neither the caller's user namespace nor below it.
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

// OwnerUID returns the user, by the caller's user namespace, to whom the
// namespace is charged: the owner of the user namespace, or of the one that
// another kind of namespace belongs to.
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

// String gives the kind and the inode number, as in "net:[4026532008]".
func (n *Namespace) String() string { return fmt.Sprintf("%s:[%d]", n.kind, n.ino) }

// WithFD lends the descriptor to fn, which must neither close nor keep it. It
// is close-on-exec and stays open until fn returns, even if Close is called
// meanwhile, fn itself included. It returns what fn returns, or ErrClosed.
func (n *Namespace) WithFD(fn func(fd int) error) error {
	fd, err := n.h.lend()
	if err != nil {
		return fmt.Errorf("%s: %w", n, err)
	}
	defer n.h.giveBack()
	return fn(fd)
}

// Disown passes the descriptor, and the duty to close it, to the caller, and
// leaves the Namespace closed. It returns -1 and changes nothing if the
// Namespace is closed or lent out by WithFD.
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

// Close gives up the descriptor; the namespace ends if nothing else keeps it.
// It may be called any number of times, on nil too, and always returns nil.
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

// close reports whether this call was the first to ask for it.
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

// closeIfIdle is called with mu held. close(2) of a namespace file has no
// error that a caller could act on.
func (h *handle) closeIfIdle() {
	if h.closing && h.lent == 0 && h.fd >= 0 {
		_ = unix.Close(h.fd)
		h.fd = -1
	}
}

// collect runs when the Namespace has become unreachable.
func (h *handle) collect() {
	if !h.close() {
		return
	}
	if report := leakReport.Load(); report != nil && h.created != "" {
		(*report)(h.created)
	}
}

var leakReport atomic.Pointer[func(created string)]

// TraceLeaks makes the package record where each Namespace is made from now
// on, and call report with that stack, from a goroutine of the runtime, when
// one is garbage collected without Close or Disown. It is meant for tests; a
// nil report ends it. It is one setting for the process.
func TraceLeaks(report func(created string)) {
	if report == nil {
		leakReport.Store(nil)
		return
	}
	leakReport.Store(&report)
}
