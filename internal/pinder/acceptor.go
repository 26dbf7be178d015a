package pinder

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/ownlog"
)

// acceptor accepts connections, even if this process has no free descriptor: it keeps one for that.
type acceptor struct {
	spare int // -1: in use
	told  time.Time
}

func newAcceptor() *acceptor {
	e := &acceptor{spare: -1}
	e.refill()
	return e
}

func (e *acceptor) refill() {
	if e.spare < 0 {
		fd, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
		if err == nil {
			e.spare = fd
		}
	}
}

// accept returns EAGAIN when no connection waits.
func (e *acceptor) accept(listener int) (int, error) {
	e.refill()
	fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	if !errors.Is(err, unix.EMFILE) || e.spare < 0 {
		return fd, err
	}
	_ = unix.Close(e.spare)
	e.spare = -1
	fd, _, err = unix.Accept4(listener, unix.SOCK_CLOEXEC)
	return fd, err
}

// failed says why no connection can be accepted, once a minute, and waits.
func (e *acceptor) failed(err error) {
	if time.Since(e.told) > time.Minute {
		e.told = time.Now()
		ownlog.Printf("accept: %v", err)
	}
	time.Sleep(time.Second)
}
