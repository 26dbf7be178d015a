package pin

import (
	"errors"
	"runtime"

	"golang.org/x/sys/unix"
)

// onThreadThatEnds runs fn on a thread that ends afterwards, so that changes of the thread are
// gone. It is never the process's first thread, which does not end and which /proc/self shows:
// while one goroutine keeps that thread, another goroutine gets another thread.
func onThreadThatEnds(fn func() error) error {
	err := errors.New("the function did not return") // unless it calls runtime.Goexit
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
