package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// readers are the possible other ends of standard error, with little room for unread data. The test
// reads from ours; its is the daemon's.
func readers(t *testing.T) map[string]func() (ours, its *os.File) {
	file := func(fd int, err error) *os.File {
		if err != nil {
			t.Fatal(err)
		}
		return os.NewFile(uintptr(fd), "stderr")
	}
	return map[string]func() (ours, its *os.File){
		"a pipe": func() (ours, its *os.File) {
			var fds [2]int
			err := unix.Pipe2(fds[:], unix.O_CLOEXEC)
			ours, its = file(fds[0], err), file(fds[1], err)
			_, _ = unix.FcntlInt(its.Fd(), unix.F_SETPIPE_SZ, 4096)
			return ours, its
		},
		"a socket, as of journald": func() (ours, its *os.File) {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			ours, its = file(fds[0], err), file(fds[1], err)
			_ = unix.SetsockoptInt(fds[1], unix.SOL_SOCKET, unix.SO_SNDBUF, 4096)
			return ours, its
		},
		"a terminal": func() (ours, its *os.File) {
			master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
			ours = file(master, err)
			if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
				t.Fatal(err)
			}
			number, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
			if err != nil {
				t.Fatal(err)
			}
			return ours, file(unix.Open(fmt.Sprintf("/dev/pts/%d", number), unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0))
		},
	}
}

func TestALogThatIsNotReadStopsNothing(t *testing.T) {
	t.Parallel()
	for kind, open := range readers(t) {
		for _, gone := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, its reader gone %t", kind, gone), func(t *testing.T) {
				t.Parallel()
				n := newNode(t)
				ours, its := open()
				defer ours.Close()
				n.stderr = its
				n.launch()
				n.check(its.Close())
				n.loadImage()
				if gone {
					n.check(ours.Close())
				}
				for i := range 4 {
					pod := n.runPodOf(n.podConfig(fmt.Sprintf("p%d", i), "userns"))
					c := n.runContainerOf(pod, sleeper("c"))
					// No program in a container ignores a signal because the daemon catches it.
					n.says(c, "grep -h SigIgn /proc/1/status /proc/self/status | cut -f2", "0000000000000000\n0000000000000000")
					n.endPod(pod)
				}
				began := time.Now()
				n.signal(unix.SIGTERM)
				if took := time.Since(began); took > slow(20*time.Second) {
					t.Errorf("its end took %v", took)
				}
				n.launch()
			})
		}
	}
}

func TestPindersLogThatIsNotReadStopsNothing(t *testing.T) {
	t.Parallel()
	for kind, open := range readers(t) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			ours, its := open()
			pinder := exec.Command(binaries.pinder, "--state", n.path("state"))
			pinder.Stderr = its
			n.check(pinder.Start())
			ended := make(chan error, 1)
			go func() { ended <- pinder.Wait() }()
			t.Cleanup(func() { _ = pinder.Process.Kill() })
			n.check(its.Close())
			n.check(ours.Close())
			n.launch()
			n.loadImage()
			c := n.runContainerOf(n.runPodOf(n.podConfig("p", "userns")), sleeper("c"))
			for range 3 {
				killSupervisor(t, n) // each is said in the log
				n.check(n.until("an exec", func() bool {
					exec, err := n.runtime.ExecSync(n.ctx(), &runtimeapi.ExecSyncRequest{ContainerId: c, Cmd: []string{"true"}})
					return err == nil && exec.GetExitCode() == 0
				}))
			}
			select {
			case err := <-ended:
				t.Errorf("the reaper ended: %v", err)
			default:
			}
		})
	}
}

func TestTheCommandsOutputMayEndEarly(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.launch()
	for range 3 {
		n.check(n.tryPod(n.podConfig(fmt.Sprintf("p%d", time.Now().UnixNano())), ""))
	}
	out, err := exec.Command("sh", "-c", binaries.pinfold+" --socket "+n.socket()+" ps | true; "+
		binaries.pinfold+" --socket "+n.socket()+" ps 2>&1 >/dev/full | grep -c 'no space'").CombinedOutput()
	if strings.TrimSpace(string(out)) != "1" {
		t.Errorf("want one word about the full device, and none about the closed pipe: %q, %v", out, err)
	}
	list, err := n.runtime.ListPodSandbox(n.ctx(), &runtimeapi.ListPodSandboxRequest{})
	n.check(err)
	for _, pod := range list.Items {
		n.endPod(pod.Id)
	}
}
