package pin

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Do runs fn on an operating system thread that has joined the namespace, and then leaves the
// namespace. It waits for fn and returns its error. Only net, ipc and uts namespaces can be joined
// like this; others give ErrInvalid.
//
// fn runs on its own goroutine, locked to the thread. Goroutines that it starts run outside the
// namespace. Processes that it starts run inside, but must not use Pdeathsig, which is bound to
// this thread. A panic in fn ends the process, as in any goroutine; runtime.Goexit in fn ends the
// caller, too.
func (n *Namespace) Do(fn func() error) error {
	if n.kind&joinable == 0 {
		return fmt.Errorf("run in %s: a thread cannot join this kind: %w", n, ErrInvalid)
	}
	v := visit{namespace: n, info: n.kind.infos()[0]}
	done := make(chan struct{})
	go func() {
		defer close(done)
		v.run(fn)
	}()
	<-done
	if !v.returned {
		runtime.Goexit()
	}
	return v.err
}

// visit is one call of Do.
type visit struct {
	namespace *Namespace
	info      kindInfo
	returned  bool // false if fn left by runtime.Goexit
	err       error
}

// run locks the thread for good if the thread may not be back in its own namespace. The Go runtime
// then destroys the thread.
func (v *visit) run(fn func() error) {
	runtime.LockOSThread()
	home, err := unix.Open("/proc/thread-self/ns/"+v.info.proc, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		v.fail("open the thread's own namespace", err)
		return
	}
	defer unix.Close(home) //nolint:errcheck // a failed close cannot be handled
	if err := v.namespace.WithFD(func(fd int) error { return unix.Setns(fd, v.info.flag) }); err != nil {
		runtime.UnlockOSThread()
		v.fail("join", err)
		return
	}
	defer func() {
		if unix.Setns(home, v.info.flag) == nil {
			runtime.UnlockOSThread()
		}
	}()
	v.err = fn()
	v.returned = true
}

func (v *visit) fail(step string, err error) {
	v.returned = true
	v.err = fmt.Errorf("run in %s: %s: %w", v.namespace, step, err)
}

// Tour joins the namespaces pinned at paths, one after the other on one thread, and calls visit in each: with the index
// of the path and nil, or with the error for which it could not join. It returns when all were visited. For many namespaces
// it is several times faster than Open and Do for each.
//
// kind is Net, IPC or UTS. Only root may be able to make files in the directories of the paths: Tour opens them as they are.
// What Do says of its function holds for visit, which must not panic.
func Tour(kind Kind, paths []string, visit func(i int, err error)) error {
	if kind&joinable == 0 || len(kind.infos()) != 1 {
		return fmt.Errorf("tour of %s: a thread cannot join this kind: %w", kind, ErrInvalid)
	}
	info := kind.infos()[0]
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := unix.Open("/proc/thread-self/ns/"+info.proc, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("tour of %s: open the thread's own namespace: %w", kind, err)
			return
		}
		defer unix.Close(home) //nolint:errcheck // a failed close cannot be handled
		for i, path := range paths {
			visit(i, join(path, info.flag))
		}
		// A thread that is not back in its own namespace stays locked, and the Go runtime destroys it.
		if unix.Setns(home, info.flag) == nil {
			runtime.UnlockOSThread()
		}
		done <- nil
	}()
	return <-done
}

// join makes the calling thread join the namespace pinned at path.
func join(path string, flag int) error {
	// Without O_NONBLOCK the open of a FIFO waits.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open namespace %s: %w", path, err)
	}
	defer unix.Close(fd) //nolint:errcheck // a failed close cannot be handled
	if err := unix.Setns(fd, flag); err != nil {
		if errors.Is(err, unix.EINVAL) {
			err = errors.Join(ErrNotNamespace, err)
		}
		return fmt.Errorf("join namespace %s: %w", path, err)
	}
	return nil
}
