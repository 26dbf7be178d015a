package pin

import (
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
