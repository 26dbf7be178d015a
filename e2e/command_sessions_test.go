package e2e

import (
	"fmt"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestPinfoldAttachShowsAContainerUntilItsEnd(t *testing.T) {
	n := started(t)
	_, c := n.runIn("p", containerConfig("main", "sh", "-c", "trap 'exit 6' TERM; while :; do echo tick; sleep 1; done"))
	r := n.startPinfold("attach", "p")
	err := n.until("output", func() bool { return len(r.out.String()) > 0 })
	n.check(err)
	_, err = n.runtime.StopContainer(n.ctx(), &runtimeapi.StopContainerRequest{ContainerId: c, Timeout: 30})
	n.check(err)
	if code := r.code(); code != 6 || r.errs.String() != "" {
		t.Errorf("exit code %d: %q", code, r.errs.String())
	}
}

// newTerminal is a terminal, as the file that a program has.
func newTerminal(t *testing.T) *os.File {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { user.Close() })
	number, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return terminal
}

// The terminal of the operator is as before, whatever ends the command or the daemon.
func TestPinfoldExecPutsTheTerminalInOrder(t *testing.T) {
	n := started(t)
	n.runIn("p", containerConfig("main", "sleep", "1000000"))
	terminal := newTerminal(t)
	settings := func() unix.Termios {
		got, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
		n.check(err)
		return *got
	}
	before := settings()
	for name, end := range map[string]func(r *running){
		"SIGTERM":           func(r *running) { n.check(r.cmd.Process.Signal(syscall.SIGTERM)) },
		"SIGHUP":            func(r *running) { n.check(r.cmd.Process.Signal(syscall.SIGHUP)) },
		"the daemon's end":  func(*running) { n.kill(); n.launch() },
		"the command's end": func(*running) {},
	} {
		script := "echo ready; sleep 1000"
		if name == "the command's end" {
			script = "echo ready; exit 7"
		}
		r := n.preparePinfold("exec", "-it", "p", "--", "sh", "-c", script)
		r.cmd.Stdin = terminal
		r.start()
		n.check(n.until("the command's output", func() bool { return len(r.out.String()) > 0 }))
		if name != "the command's end" && settings() == before {
			t.Errorf("%s: the terminal is not raw", name)
		}
		end(r)
		if code := r.code(); code == 0 {
			t.Errorf("%s: exit code 0", name)
		}
		if settings() != before {
			t.Errorf("%s: the terminal is not as before", name)
		}
	}
}
