package pinder

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
	"github.com/pinfold-run/pinfold/internal/pinder/link"
	"github.com/pinfold-run/pinfold/internal/pinder/oci"
	"github.com/pinfold-run/pinfold/internal/pinder/ownlog"
	"github.com/pinfold-run/pinfold/internal/pinder/reaper"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// supervisor is the inner process.
type supervisor struct {
	dir    string
	reaper *link.Reaper
	calls  *oci.Caller
	strays *oci.Strays
	// restored is closed when the table holds what the last supervisor left.
	restored chan struct{}

	oom sync.Mutex // one reckoning at a time, see reckonOOM
	// promised are descriptors for creations under way, see admit.
	promised atomic.Int64

	mu       sync.Mutex
	procs    map[string]*process
	sessions map[*session]struct{}
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
	s := &supervisor{
		dir: dir, restored: make(chan struct{}),
		procs: map[string]*process{}, sessions: map[*session]struct{}{},
	}
	var err error
	if s.calls, err = oci.NewCaller(filepath.Join(dir, "calls"), oci.NewChildren()); err != nil {
		return fmt.Errorf("supervise: %w", err)
	}
	s.strays = oci.FindStrays(s.calls.Dir, dir)
	if s.reaper, err = link.NewReaper(link.FDLink); err != nil {
		return err
	}
	parent := os.Getppid()
	recalled := &recall{}
	gone := make(chan struct{})
	go func() {
		s.reaper.Serve(s.pong, s.calls.Children.Reported, recalled.add)
		close(gone) // and nothing is recalled after
	}()
	go s.watchReaper(parent, gone)
	if err := s.restoreAll(recalled, gone); err != nil {
		return err
	}
	go s.calls.Children.Loop(s.reaper.Reap)
	return s.accept()
}

// pong answers the reaper's watch. A supervisor whose table is locked for good
// does not answer, and is replaced.
func (s *supervisor) pong() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reaper.Pong()
}

// watchReaper takes the reaper's place when it is gone, and ends it when it is
// silent: it pings every tick, so several of our own ticks without a ping mean
// that it is stopped or wedged.
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
			// Our parent cannot have been reaped and its pid reused while it is our parent.
			if missed > 2*link.MaxMissed && os.Getppid() == parent {
				ownlog.Printf("reaper %d is silent: killing it", parent)
				_ = unix.Kill(parent, unix.SIGKILL)
				missed = 0
			}
		}
	}
}

// takeOver replaces this image by a reaper that has all descriptors, and that
// has all children already, because we are their parent or sub-reaper.
func (s *supervisor) takeOver() {
	<-s.restored
	for {
		ownlog.Printf("reaper is gone: taking its place")
		ownlog.Printf("take over: %v", s.becomeReaper())
		time.Sleep(time.Second)
	}
}

// becomeReaper returns only when it fails. It hands on the descriptors themselves, since there may be no room for
// duplicates; the locks of all objects, which nothing else takes together, are held so that none is closed.
func (s *supervisor) becomeReaper() error {
	var objects []reaper.Object
	for _, p := range s.all() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.meta.Phase == wire.PhaseDeleted {
			continue
		}
		o := reaper.Object{Key: p.key}
		var kinds []string
		for kind, h := range p.handles {
			kinds, o.FDs = append(kinds, kind), append(o.FDs, h.FD)
		}
		o.Kinds = strings.Join(kinds, ",")
		objects = append(objects, o)
	}
	return reaper.TakePlace(s.dir, objects)
}

func (s *supervisor) all() []*process {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*process, 0, len(s.procs))
	for _, p := range s.procs {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *process) int { return strings.Compare(a.key, b.key) })
	return out
}

// lookup finds a process.
func (s *supervisor) lookup(id, execID string) (*process, error) {
	s.mu.Lock()
	p := s.procs[keyOf(id, execID)]
	s.mu.Unlock()
	if p != nil {
		return p, nil
	}
	if execID != "" {
		return nil, wire.Errorf(wire.CodeNotFound, "exec %s of container %s: not found", execID, id)
	}
	return nil, wire.Errorf(wire.CodeNotFound, "container %s: not found", id)
}

// remember puts p into the table unless its key is taken.
func (s *supervisor) remember(p *process) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.procs[p.key] != nil {
		return false
	}
	s.procs[p.key] = p
	return true
}

func (s *supervisor) forget(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.procs[p.key] == p {
		delete(s.procs, p.key)
	}
}

// accept serves connections.
func (s *supervisor) accept() error {
	h, err := descriptor.Pollable(link.FDListen, "listener")
	if err != nil {
		return err
	}
	door := newEntrance()
	for {
		var fd int
		var aerr error
		err := h.Raw.Read(func(l uintptr) bool {
			fd, aerr = door.accept(int(l))
			return !errors.Is(aerr, unix.EAGAIN)
		})
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		if aerr != nil {
			door.failed(aerr)
			continue
		}
		conn, err := wire.NewConn(fd)
		if err != nil {
			ownlog.Printf("%v", err)
			continue
		}
		go newSession(s, conn).run()
	}
}
