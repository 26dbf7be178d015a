package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// kubectlClient is a program around the library of kubectl; see its source for the arguments.
var kubectlClient = sync.OnceValues(func() (string, error) {
	source, err := filepath.Abs("../internal/testkubectl")
	if err != nil {
		return "", err
	}
	return filepath.Join(binaries.dir, "client"), goBuild(binaries.dir, source, "client")
})

// failedSession is the client's exit code for a session that failed.
const failedSession = 125

// realSession is a session of kubectl's library in progress.
type realSession struct {
	name  string
	cmd   *exec.Cmd
	out   *bufio.Reader
	errs  bytes.Buffer
	ended chan struct{}
}

// session starts the client and waits for its first line.
func (n *node) session(name string, args ...string) (s *realSession, line string) {
	n.t.Helper()
	program, err := kubectlClient()
	n.check(err)
	s = &realSession{name: name, cmd: exec.Command(program, args...), ended: make(chan struct{})}
	s.cmd.Stderr = &s.errs
	in, err := s.cmd.StdinPipe() // stays open
	n.check(err)
	out, err := s.cmd.StdoutPipe()
	n.check(err)
	n.check(s.cmd.Start())
	n.t.Cleanup(func() { in.Close(); _ = s.cmd.Process.Kill(); <-s.ended })
	s.out = bufio.NewReader(out)
	line, err = s.out.ReadString('\n')
	go func() {
		_, _ = io.Copy(io.Discard, s.out)
		_ = s.cmd.Wait()
		close(s.ended)
	}()
	if err != nil {
		<-s.ended
		n.t.Fatalf("%s: it did not begin: %s", name, s.errs.String())
	}
	return s, strings.TrimSpace(line)
}

// endsWith checks the exit code and what the client says.
func (s *realSession) endsWith(t *testing.T, code int, text string) {
	t.Helper()
	select {
	case <-s.ended:
	case <-time.After(slow(30 * time.Second)):
		t.Errorf("%s: it does not end", s.name)
		return
	}
	if got := s.cmd.ProcessState.ExitCode(); got != code || !strings.Contains(s.errs.String(), text) {
		t.Errorf("%s: exit code %d, want %d; it says %q, want %q", s.name, got, code, s.errs.String(), text)
	}
}

// ways are kubectl's ways to a runtime.
var ways = []string{"spdy", "websocket", "kubelet-spdy", "kubelet-websocket"}

// cutSessions has a session of each kind in progress.
type cutSessions struct {
	execs, terminals, attached, forwarded []*realSession
}

// fail checks that all have failed, and what their clients say.
func (all *cutSessions) fail(t *testing.T, execs, terminals, attached, forwarded string) {
	t.Helper()
	for _, kind := range []struct {
		text     string
		sessions []*realSession
	}{{execs, all.execs}, {terminals, all.terminals}, {attached, all.attached}, {forwarded, all.forwarded}} {
		for _, s := range kind.sessions {
			s.endsWith(t, failedSession, kind.text)
		}
	}
}

func (n *node) sessionsInProgress(pod, container string) *cutSessions {
	n.t.Helper()
	all := &cutSessions{}
	for _, way := range ways {
		s, _ := n.session(way+" exec", way, "exec", n.execURL(container, pipes, "sh", "-c", "echo ready; exec sleep 1000"), "stdin", "stdout", "stderr")
		all.execs = append(all.execs, s)
		s, _ = n.session(way+" exec -t", way, "exec", n.execURL(container, terminal, "sh", "-c", "echo ready; sleep 2000"), "stdin", "stdout", "tty")
		all.terminals = append(all.terminals, s)
		s, _ = n.session(way+" attach", way, "attach", n.attachURL(container, streamsOf{stdout: true, stderr: true}), "stdout", "stderr")
		all.attached = append(all.attached, s)
		resp, err := n.runtime.PortForward(n.ctx(), &runtimeapi.PortForwardRequest{PodSandboxId: pod})
		n.check(err)
		s, port := n.session(way+" port-forward", way, "forward", resp.Url, "18099")
		n.forwards(port)
		all.forwarded = append(all.forwarded, s)
	}
	return all
}

// forwards opens a connection through a client's port. It stays open.
func (n *node) forwards(port string) {
	n.t.Helper()
	err := n.until("an echo through the port", func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			return false
		}
		_ = conn.SetDeadline(time.Now().Add(readyTimeout))
		_, _ = io.WriteString(conn, "hello\n")
		got, _ := bufio.NewReader(conn).ReadString('\n')
		if got != "hello\n" {
			conn.Close()
			return false
		}
		n.t.Cleanup(func() { conn.Close() })
		return true
	})
	n.check(err)
}

// ticking is a container with output every second, and an echo on a port.
func ticking() *runtimeapi.ContainerConfig {
	return containerConfig("main", "sh", "-c", "nc -ll -p 18099 -e cat & while :; do echo tick; sleep 1; done")
}

func TestSessionsThatTheDaemonsEndCutsOffFail(t *testing.T) {
	for name, end := range map[string]struct {
		signal syscall.Signal
		// what the clients are told
		exec, terminal, attach, forward string
	}{
		"SIGTERM": {syscall.SIGTERM, "may go on in the container", "terminal hangs up", "attach again", "lost connection to pod"},
		"SIGKILL": {syscall.SIGKILL, "", "", "", "lost connection to pod"},
	} {
		t.Run(name, func(t *testing.T) {
			n := started(t)
			pod, c := n.runIn("p", ticking())
			// With the first attach, pinder makes the one pipe through which it looks at output.
			first, _ := n.session("the first attach", "websocket", "attach", n.attachURL(c, streamsOf{stdout: true}), "stdout")
			_ = first.cmd.Process.Kill()
			n.returnsTo("the first attach", map[string]int{}, c, 4)
			before := n.openIn()
			all := n.sessionsInProgress(pod, c)
			synced := make(chan error, 1)
			go func() {
				_, err := n.runtime.ExecSync(n.ctx(), &runtimeapi.ExecSyncRequest{ContainerId: c, Cmd: []string{"sleep", "3000"}})
				synced <- err
			}()
			n.check(n.until("ExecSync to run", func() bool { return anyHas(processesOf(c), "sleep 3000") }))
			last, _ := n.session("an exec that ends in time", "spdy", "exec", n.execURL(c, pipes, "sh", "-c", "echo ready; sleep 1; exit 3"), "stdin", "stdout", "stderr")
			n.signal(end.signal)
			all.fail(t, end.exec, end.terminal, end.attach, end.forward)
			if end.signal == syscall.SIGTERM {
				last.endsWith(t, 3, "")
			} else {
				last.endsWith(t, failedSession, "")
			}
			if err := <-synced; err == nil {
				t.Error("ExecSync: success")
			}
			n.launch()
			delete(before, "daemon") // a new daemon
			// What the clients were told is true: commands go on without their streams, terminals have hung up.
			n.check(n.until("terminals and ExecSync to end", func() bool {
				now := processesOf(c)
				return !anyHas(now, "sleep 2000") && !anyHas(now, "sleep 3000")
			}))
			if !anyHas(processesOf(c), "sleep 1000") {
				t.Error("the commands without a terminal have ended")
			}
			for pid, command := range processesOf(c) {
				if strings.Contains(command, "sleep 1000") {
					n.check(syscall.Kill(pid, syscall.SIGKILL))
				}
			}
			again, _ := n.session("attach again", "websocket", "attach", n.attachURL(c, streamsOf{stdout: true}), "stdout")
			_ = again.cmd.Process.Kill()
			n.returnsTo("sessions that were cut off", before, c, 4) // sh, nc and its child, sleep
		})
	}
}

// With pinder, the exit code is lost, and not the session's end.
func TestAnExecWhosePinderIsLostFails(t *testing.T) {
	n := started(t)
	_, c := n.runIn("p", ticking())
	var running []*realSession
	for _, way := range ways {
		s, _ := n.session(way, way, "exec", n.execURL(c, pipes, "sh", "-c", "echo ready; sleep 3"), "stdin", "stdout", "stderr")
		running = append(running, s)
	}
	for _, half := range []string{"pinder --state", "pinder supervise"} {
		for _, line := range n.processes() {
			var pid int
			if _, err := fmt.Sscanf(line, "process %d:", &pid); err == nil && strings.Contains(line, half) {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
					t.Fatal(err)
				}
			}
		}
	}
	for _, s := range running {
		select {
		case <-s.ended:
		case <-time.After(slow(time.Minute)):
			t.Fatalf("%s: it does not end", s.name)
		}
		// The next pinder may have found the command before its end. Then the code is known, and 0.
		if code := s.cmd.ProcessState.ExitCode(); code != 0 && code != failedSession || code == failedSession && !strings.Contains(s.errs.String(), "exit code is lost") {
			t.Errorf("%s: exit code %d: %s", s.name, code, s.errs.String())
		}
	}
}

// The end of its container is the normal end of an attach.
func TestAnAttachEndsWithItsContainer(t *testing.T) {
	for name, end := range map[string]func(n *node, container string) error{
		"stopped": func(n *node, c string) error {
			_, err := n.runtime.StopContainer(n.ctx(), &runtimeapi.StopContainerRequest{ContainerId: c})
			return err
		},
		"removed": func(n *node, c string) error {
			_, err := n.runtime.RemoveContainer(n.ctx(), &runtimeapi.RemoveContainerRequest{ContainerId: c})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := started(t)
			_, c := n.runIn("p", ticking())
			var attached []*realSession
			for _, way := range ways {
				s, _ := n.session(way, way, "attach", n.attachURL(c, streamsOf{stdout: true}), "stdout")
				attached = append(attached, s)
			}
			n.check(end(n, c))
			for _, s := range attached {
				s.endsWith(t, 0, "")
			}
		})
	}
}
