package pinder

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
	"github.com/pinfold-run/pinfold/internal/pinder/link"
	"github.com/pinfold-run/pinfold/internal/pinder/oci"
	"github.com/pinfold-run/pinfold/internal/pinder/ownlog"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// upgradeGrace is how long an upgrade waits for operations under way.
const upgradeGrace = 10 * time.Second

// missing answers an offer: those keys that a daemon holds and pinder does not.
func (s *supervisor) missing(r wire.Keys) (wire.Keys, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lost := wire.Keys{Keys: []string{}}
	for _, key := range r.Keys {
		if s.procs[key] == nil {
			lost.Keys = append(lost.Keys, key)
		}
	}
	return lost, nil
}

// giveBack restores one object from the daemon's duplicates.
func (s *supervisor) giveBack(m wire.Message) error {
	var k wire.Keep
	if err := m.Decode(&k); err != nil {
		descriptor.CloseAll(m.FDs)
		return err
	}
	if len(m.FDs) < len(k.Kinds) {
		descriptor.CloseAll(m.FDs)
		return wire.Errorf(wire.CodeResourceExhausted, "restore %s: %d of %d descriptors came", k.Key, len(m.FDs), len(k.Kinds))
	}
	p, err := s.restore(k.Key, k.Kinds, m.FDs)
	if err != nil {
		return wire.Errorf(wire.CodeFailedPrecondition, "restore %s: %v", k.Key, err)
	}
	if err := p.keep(); err != nil {
		return wire.Errorf(wire.CodeUnavailable, "restore %s: %v", k.Key, err)
	}
	return nil
}

// adopt watches a container of which all descriptors are lost. Its output can
// no longer be logged; its exit code is known where the pidfd tells it.
func (s *supervisor) adopt(r wire.Adopt) (*wire.Created, error) {
	if err := checkCreate(&wire.Create{
		ID: r.ID, Bundle: r.Bundle, Runtime: r.Runtime, LogPath: r.LogPath, ExitFile: r.ExitFile,
	}); err != nil {
		return nil, err
	}
	fail := func(code wire.Code, err error) (*wire.Created, error) {
		return nil, wire.Errorf(code, "adopt: container %s: %v", r.ID, err)
	}
	h, err := openVerified(proc.Process{PID: r.PID, Start: r.StartTime})
	if err != nil {
		return fail(wire.CodeNotFound, err)
	}
	p, err := s.newProcess(meta{
		ID: r.ID, Runtime: r.Runtime, Bundle: r.Bundle, TTY: r.TTY, ExitFile: r.ExitFile,
		Phase: wire.PhaseRunning, Started: true, LogLost: true,
	})
	if err != nil {
		h.Close()
		return fail(wire.CodeInternal, err)
	}
	p.set(kindPidfd, h)
	if !s.remember(p) {
		h.Close()
		p.state.close()
		return fail(wire.CodeAlreadyExists, fmt.Errorf("is known"))
	}
	defer p.unlockOp()
	s.calls.Children.Claim(r.PID)
	if err := p.identify(r.PID); err != nil {
		s.calls.Children.Unclaim(r.PID)
		p.discard()
		return fail(wire.CodeNotFound, err)
	}
	if err := p.setPhase(wire.PhaseRunning); err != nil {
		return fail(wire.CodeInternal, err)
	}
	go p.watch()
	return p.created(), nil
}

// openVerified opens a pidfd and checks that it is of the process meant.
func openVerified(p proc.Process) (*descriptor.Handle, error) {
	fd, err := p.Open()
	if err != nil {
		return nil, err
	}
	h, err := descriptor.Pollable(fd, kindPidfd)
	if err != nil {
		_ = unix.Close(fd)
	}
	return h, err
}

// upgrade replaces the reaper and then this process by another binary, in
// place. Runtime calls under way are undone or resumed as after a kill.
func (s *supervisor) upgrade(r wire.Upgrade) error {
	if !filepath.IsAbs(r.Path) {
		return wire.Errorf(wire.CodeInvalidArgument, "upgrade: path %q is not absolute", r.Path)
	}
	if err := s.tryBinary(r.Path); err != nil {
		return wire.Errorf(wire.CodeFailedPrecondition, "upgrade: %s: %v", r.Path, err)
	}
	deadline := time.Now().Add(upgradeGrace)
	for _, p := range s.all() { // let operations end that can
		if p.lockOp(deadline) == nil {
			defer p.unlockOp()
		}
	}
	if err := s.reaper.Upgrade(r.Path); err != nil {
		return wire.Errorf(wire.CodeInternal, "upgrade: reaper: %v", err)
	}
	ownlog.Printf("reaper is upgraded; supervisor follows")
	syscall.ForkLock.Lock() // as in become
	defer syscall.ForkLock.Unlock()
	for _, fd := range []int{link.FDLink, link.FDListen, link.FDLock} {
		if err := descriptor.KeepOnExec(fd, true); err != nil {
			return wire.Errorf(wire.CodeInternal, "upgrade: %v", err)
		}
	}
	// The daemon sees the connection end and the new image's hello.
	err := syscall.Exec(r.Path, []string{"pinder", "supervise", "--state", s.dir}, syscall.Environ())
	return wire.Errorf(wire.CodeInternal, "upgrade: supervisor: %v", err)
}

// tryBinary runs "PATH version": a binary that cannot even do that must not
// take our place.
func (s *supervisor) tryBinary(path string) error {
	n := s.calls.Children.BeginCall()
	defer s.calls.Children.EndCall(n)
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = null.Close() }()
	var fd int
	std := null.Fd()
	pid, err := syscall.ForkExec(path, []string{"pinder", "version"}, &syscall.ProcAttr{
		Env: syscall.Environ(), Files: []uintptr{std, std, std},
		Sys: &syscall.SysProcAttr{Setpgid: true, PidFD: &fd},
	})
	if err != nil {
		return err
	}
	ws, err := oci.WaitDeadline(pid, fd, time.Now().Add(5*time.Second))
	if err != nil {
		return err
	}
	_, _, _ = proc.Reap(unix.P_PID, pid)
	if !ws.OK() {
		return fmt.Errorf("\"version\" fails: code %d, status %d", ws.Code, ws.Status)
	}
	return nil
}
