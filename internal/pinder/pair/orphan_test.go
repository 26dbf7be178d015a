package pair

import (
	"os/exec"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// kernelKeepsExits reports whether a pidfd tells the exit code of a process that somebody else has reaped
// (PIDFD_INFO_EXIT, Linux 6.15).
var kernelKeepsExits = sync.OnceValues(func() (bool, error) {
	const pidfdInfoExit = 1 << 3
	pidfd := -1
	ended := exec.Command("true")
	ended.SysProcAttr = &syscall.SysProcAttr{PidFD: &pidfd}
	if err := ended.Run(); err != nil {
		return false, err
	}
	defer unix.Close(pidfd)
	info := unix.PidfdInfo{Mask: pidfdInfoExit}
	err := unix.IoctlPidfdInfo(pidfd, &info)
	return err == nil && info.Mask&pidfdInfoExit != 0, nil
})

// exitOfOrphan waits for the end of a container whose parent died when no other half of pinder could inherit
// it. Where the kernel does not keep the exit code, package pinder reports it as unknown, and known is false.
func (n *node) exitOfOrphan(id string) (e wire.Exit, known bool) {
	n.t.Helper()
	keeps, err := kernelKeepsExits()
	if err != nil {
		n.t.Fatal(err)
	}
	e = n.exit(id)
	if e.Unknown && !keeps {
		n.t.Logf("this kernel keeps no exit codes: that of %s is unknown", id)
		return e, false
	}
	return e, true
}

// checkOrphan is checkCounter for such a container: its log is whole, whatever is known of its end.
func (n *node) checkOrphan(id string, lines, code int) {
	n.t.Helper()
	if _, known := n.exitOfOrphan(id); known {
		n.checkCounter(id, lines, code)
		return
	}
	n.checkLog(id, lines)
}

// checkKilledOrphan is the same for one that ended by SIGKILL.
func (n *node) checkKilledOrphan(id string) {
	n.t.Helper()
	if e, known := n.exitOfOrphan(id); known && (e.Signal != int(unix.SIGKILL) || e.Unknown) {
		n.t.Fatalf("exit of %s: %+v", id, e)
	}
}
