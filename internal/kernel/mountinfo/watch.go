package mountinfo

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// Watch counts the changes of this process's mount namespace. What was true of mounts at one count is true as long as the
// count is the same. Any number of goroutines may use it.
type Watch struct {
	mu sync.Mutex
	// fd is no os.File: the Go runtime would poll it, too, and the kernel shows each change to one poll only.
	fd    int
	count uint64
}

// NewWatch opens a watch. The caller closes it.
func NewWatch() (*Watch, error) {
	fd, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("watch the mount table: %w", err)
	}
	return &Watch{fd: fd}, nil
}

// Changes is another number than before if anything was mounted, unmounted or moved since. Take it before the look at the
// mounts: what changes during the look is then a change since.
func (w *Watch) Changes() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fd < 0 {
		w.count++
		return w.count
	}
	// The kernel signals a change as an exceptional event and an error (proc_pid_mountinfo(5)).
	p := []unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLPRI}}
	n, err := unix.Poll(p, 0)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Poll(p, 0)
	}
	if n > 0 || err != nil {
		w.count++
	}
	return w.count
}

// Close closes the watch. Each call of Changes is another number then.
func (w *Watch) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fd >= 0 {
		_ = unix.Close(w.fd)
	}
	w.fd = -1
}
