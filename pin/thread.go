package pin

import (
	"errors"
	"runtime"

	"golang.org/x/sys/unix"
)

// onThreadThatEnds runs fn on a thread that ends with it, so that what fn changes of its thread is gone afterwards. It
// is never the process's first thread, which does not end and is what /proc/self shows: while a goroutine keeps that one,
// another gets another.
func onThreadThatEnds(fn func() error) error {
	err := errors.New("the function did not return") // but called runtime.Goexit
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			err = onThreadThatEnds(fn)
			runtime.UnlockOSThread()
			return
		}
		err = fn() // never unlocked
	}()
	<-done
	return err
}
