package keeper

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
)

// Kinds of descriptors of a process. Their names are part of the contract with
// the reaper's and the daemon's duplicates.
const (
	kindState   = "state"   // the memfd, see state.go
	kindStdout  = "stdout"  // read end
	kindStderr  = "stderr"  // read end
	kindStdin   = "stdin"   // write end
	kindTTY     = "tty"     // pty master
	kindPrivate = "private" // both ends of the private pipe
	kindLog     = "log"
	kindPidfd   = "pidfd"

	// The two ends of a private pipe that an earlier pinder has made.
	kindPrivateR = "private-r"
	kindPrivateW = "private-w"
)

// handles are the descriptors that are held of a container or exec.
type handles struct {
	mu sync.Mutex
	of map[string]*descriptor.Handle // by kind
}

// set stores a handle and closes one of the same kind; nil stores none.
func (t *handles) set(kind string, h *descriptor.Handle) {
	t.mu.Lock()
	old := t.of[kind]
	if h == nil {
		delete(t.of, kind)
	} else {
		t.of[kind] = h
	}
	t.mu.Unlock()
	if old != nil {
		old.Close()
	}
}

// get returns a handle, nil if there is none. The holder of the operation lock can rely on it; others have to expect that
// it is closed at any time, see use and duplicate.
func (t *handles) get(kind string) *descriptor.Handle {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.of[kind]
}

// use calls f with a descriptor, which is not closed before f returns, and returns false if there is none.
func (t *handles) use(kind string, f func(fd int)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.of[kind]
	if h != nil {
		f(h.FD)
	}
	return h != nil
}

// duplicate returns a descriptor of the caller's own, -1 if there is none of that kind.
func (t *handles) duplicate(kind string) (fd int, err error) {
	fd = -1
	t.use(kind, func(held int) { fd, err = descriptor.Duplicate(held) })
	if err != nil {
		return -1, fmt.Errorf("duplicate %s: %w", kind, err)
	}
	return fd, nil
}

// duplicates returns descriptors of the caller's own of all kinds.
func (t *handles) duplicates() (kinds []string, fds []int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for kind, h := range t.of {
		fd, err := descriptor.Duplicate(h.FD)
		if err != nil {
			descriptor.CloseAll(fds)
			return nil, nil, fmt.Errorf("duplicate %s: %w", kind, err)
		}
		kinds, fds = append(kinds, kind), append(fds, fd)
	}
	return kinds, fds, nil
}

// lock returns all descriptors, and keeps them as they are until unlock is called.
func (t *handles) lock() (kinds []string, fds []int, unlock func()) {
	t.mu.Lock()
	for kind, h := range t.of {
		kinds, fds = append(kinds, kind), append(fds, h.FD)
	}
	return kinds, fds, t.mu.Unlock
}

// closeButState closes and removes all but the shared state.
func (t *handles) closeButState() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for kind, h := range t.of {
		if kind != kindState {
			h.Close()
			delete(t.of, kind)
		}
	}
}

// closeAll closes and removes all; the owner of the shared state closes that.
func (t *handles) closeAll() {
	t.closeButState()
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.of)
}

// makeHandles takes ownership of fds, and closes them all on error. Kinds that
// this release does not know are closed and left out.
func makeHandles(kinds []string, fds []int) (map[string]*descriptor.Handle, error) {
	if len(kinds) != len(fds) {
		descriptor.CloseAll(fds)
		return nil, fmt.Errorf("%d descriptors for %v", len(fds), kinds)
	}
	handles := map[string]*descriptor.Handle{}
	for i, kind := range kinds {
		h := &descriptor.Handle{FD: fds[i]}
		switch kind {
		case kindStdout, kindStderr, kindTTY, kindPidfd:
			var err error
			if h, err = descriptor.Pollable(fds[i], kind); err != nil {
				descriptor.CloseAll(fds[i:])
				for _, h := range handles {
					h.Close()
				}
				return nil, err
			}
		case kindState, kindStdin, kindPrivate, kindPrivateR, kindPrivateW, kindLog:
		default:
			_ = unix.Close(fds[i])
			continue
		}
		handles[kind] = h
	}
	return handles, nil
}
