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
	"github.com/pinfold-run/pinfold/internal/pinder/program"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// upgradeGrace is how long an upgrade waits for operations under way.
const upgradeGrace = 10 * time.Second

// upgrade replaces the reaper's program and then this process's by another binary. Runtime calls that run are undone
// or resumed, as after a kill.
func (s *supervisor) upgrade(r wire.Upgrade) error {
	if !filepath.IsAbs(r.Path) {
		return wire.Errorf(wire.CodeInvalidArgument, "upgrade: path %q is not absolute", r.Path)
	}
	if err := s.tryBinary(r.Path); err != nil {
		return wire.Errorf(wire.CodeFailedPrecondition, "upgrade: %s: %v", r.Path, err)
	}
	defer s.keeper.Hold(time.Now().Add(upgradeGrace))() // let operations end that can
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
	err := program.Execute(r.Path, func(path string) error {
		return syscall.Exec(path, []string{"pinder", "supervise", "--state", s.dir}, syscall.Environ())
	})
	return wire.Errorf(wire.CodeInternal, "upgrade: supervisor: %v", err)
}

// tryBinary runs "PATH version". If even that fails, the binary is not used.
func (s *supervisor) tryBinary(path string) error {
	n := s.children.BeginCall()
	defer s.children.EndCall(n)
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

// shutdown ends pinder when nothing depends on it.
func (s *supervisor) shutdown() error {
	if n := len(s.keeper.Objects()); n > 0 {
		return wire.Errorf(wire.CodeFailedPrecondition, "shutdown: %d containers and execs depend on pinder", n)
	}
	if err := s.reaper.Quit(); err != nil {
		return wire.Errorf(wire.CodeFailedPrecondition, "shutdown: %v", err)
	}
	time.AfterFunc(100*time.Millisecond, func() { os.Exit(0) }) // after the answer
	return nil
}
