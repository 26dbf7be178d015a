package pinder

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/goroutines"
	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
	"github.com/pinfold-run/pinfold/internal/pinder/keeper"
	"github.com/pinfold-run/pinfold/internal/pinder/link"
	"github.com/pinfold-run/pinfold/internal/pinder/oci"
	"github.com/pinfold-run/pinfold/internal/pinder/ownlog"
	"github.com/pinfold-run/pinfold/internal/pinder/reaper"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// supervisor is the inner process: it serves daemons, and watches the reaper.
type supervisor struct {
	dir      string
	children *oci.Children
	reaper   *link.Reaper
	keeper   *keeper.Keeper
	// restored is closed when the keeper has what the last supervisor left.
	restored chan struct{}

	mu          sync.Mutex
	connections map[*connection]struct{}
}

// RunSupervisor is the inner process, started by a reaper with its descriptors
// at fixed numbers. It returns only with an error.
func RunSupervisor(dir string) error {
	for _, fd := range []int{link.FDLink, link.FDListen, link.FDLock} {
		if err := descriptor.KeepOnExec(fd, false); err != nil {
			return fmt.Errorf("supervise: descriptor %d: %w (pinder starts its supervisor itself)", fd, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become sub-reaper: %w", err)
	}
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGPIPE)
	goroutines.OnSignal(dir, "pinder", func(path string, err error) {
		if err != nil {
			ownlog.Printf("SIGUSR1: what all goroutines do was not written: %v", err)
			return
		}
		ownlog.Printf("SIGUSR1: what all goroutines do is in %s", path)
	})
	s := &supervisor{
		dir: dir, children: oci.NewChildren(), restored: make(chan struct{}), connections: map[*connection]struct{}{},
	}
	var err error
	if s.reaper, err = link.NewReaper(link.FDLink); err != nil {
		return err
	}
	if s.keeper, err = keeper.New(dir, s.reaper, s.children, s.broadcast); err != nil {
		return fmt.Errorf("supervise: %w", err)
	}
	parent := os.Getppid()
	recalled := &recall{}
	gone := make(chan struct{})
	go func() {
		s.reaper.Serve(s.pong, s.children.Reported, recalled.add)
		close(gone) // nothing is recalled after that
	}()
	go s.watchReaper(parent, gone)
	if err := s.restore(recalled, gone); err != nil {
		return err
	}
	go s.children.Loop(s.reaper.Reap)
	return s.accept()
}

// pong answers the reaper's ping. A supervisor whose tables stay locked does not answer, and is replaced.
func (s *supervisor) pong() {
	s.ping()
	s.reaper.Pong()
}

// ping proves that the tables can be locked.
func (s *supervisor) ping() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keeper.Ping()
}

// recall collects what the reaper gives back.
type recall struct{ objects []keeper.Held }

func (r *recall) add(key string, kinds []string, fds []int) {
	r.objects = append(r.objects, keeper.Held{Key: key, Kinds: kinds, FDs: fds})
}

// restore continues what the last supervisor did.
func (s *supervisor) restore(r *recall, gone <-chan struct{}) error {
	defer close(s.restored)
	// The answer comes after the last object, on the same socket, by the same reader.
	if err := s.reaper.Recall(); err != nil {
		select {
		case <-gone: // this comes soon if it is dead
			// The reaper ended meanwhile. What it has sent is restored, and handed over.
			ownlog.Printf("the reaper ended while it gave back descriptors: %d objects came", len(r.objects))
		case <-time.After(link.Timeout):
			return fmt.Errorf("ask the reaper for descriptors: %w", err)
		}
	}
	return s.keeper.RestoreAll(r.objects)
}

// watchReaper takes the reaper's place when it has ended. It kills a reaper that does not ping: the reaper pings at
// every tick, so several of our ticks without a ping mean that it is stopped or hangs.
func (s *supervisor) watchReaper(parent int, gone <-chan struct{}) {
	ticker := time.NewTicker(link.Tick)
	defer ticker.Stop()
	missed := 0
	for {
		select {
		case <-gone:
			s.takeOver()
		case <-ticker.C:
			if missed++; s.reaper.Pinged() {
				missed = 0
			}
			// While it is our parent, its PID is not another process's.
			if missed > 2*link.MaxMissed && os.Getppid() == parent {
				ownlog.Printf("reaper %d is silent: killing it", parent)
				_ = unix.Kill(parent, unix.SIGKILL)
				missed = 0
			}
		}
	}
}

// takeOver makes this process a reaper that has all descriptors. It has all children already, because it is their
// parent or sub-reaper.
func (s *supervisor) takeOver() {
	<-s.restored
	for {
		ownlog.Printf("reaper is gone: taking its place")
		ownlog.Printf("take over: %v", s.becomeReaper())
		time.Sleep(time.Second)
	}
}

// becomeReaper returns only if it fails. It hands over the descriptors themselves: there may be no free descriptors
// for duplicates.
func (s *supervisor) becomeReaper() error {
	all, unlock := s.keeper.LockAll()
	defer unlock()
	var objects []reaper.Object
	for _, o := range all {
		objects = append(objects, reaper.Object{Key: o.Key, Kinds: strings.Join(o.Kinds, ","), FDs: o.FDs})
	}
	return reaper.TakePlace(s.dir, objects)
}

// accept serves connections.
func (s *supervisor) accept() error {
	h, err := descriptor.Pollable(link.FDListen, "listener")
	if err != nil {
		return err
	}
	acceptor := newAcceptor()
	for {
		var fd int
		var aerr error
		err := h.Raw.Read(func(l uintptr) bool {
			fd, aerr = acceptor.accept(int(l))
			return !errors.Is(aerr, unix.EAGAIN)
		})
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		if aerr != nil {
			acceptor.failed(aerr)
			continue
		}
		conn, err := wire.NewConn(fd)
		if err != nil {
			ownlog.Printf("%v", err)
			continue
		}
		go newConnection(s, conn).run()
	}
}
