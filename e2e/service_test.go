package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// service is the unit of contrib/systemd under a systemd that this test may give units: that of the
// test VM. The daemon is in the node's namespaces, the test in its own.
type service struct {
	*node
	name string
}

func newService(t *testing.T) *service {
	t.Helper()
	if _, err := os.Stat("/run/systemd/system"); err != nil || os.Getenv(prebuiltVariable) == "" {
		t.Skip("this test gives systemd units: it runs in the test VM (make test-vm)")
	}
	s := &service{newNode(t), "pinfold-e2e.service"}
	s.configured(fmt.Sprintf("cni_conf_dir = %q\n[runtimes]\n%s = %q\n", s.path("cni"), binaries.handler, binaries.runtime))
	unit, err := os.ReadFile("../contrib/systemd/pinfold.service")
	s.check(err)
	text := strings.NewReplacer(
		"ExecStart=/usr/local/bin/pinfoldd", "ExecStart="+binaries.pinfoldd+" --config "+s.file,
		"ExecStartPre=/usr/local/bin/pinfoldd config check", "ExecStartPre="+binaries.pinfoldd+" config check --config "+s.file,
		"RestartSec=1\n", "RestartSec=100ms\n", "WatchdogSec=5min", "WatchdogSec=16", "TimeoutAbortSec=30", "TimeoutAbortSec=1",
		"/etc/default/pinfold", s.path("environment"),
	).Replace(string(unit))
	s.write("environment", "HTTPS_PROXY=http://proxy.invalid:1\n")
	s.unit(s.name, text+"\n[Service]\nStandardError=append:"+s.path("daemon.log")+"\n")
	// As the kubelet, it needs the socket at once.
	s.unit("pinfold-e2e-kubelet.service", "[Unit]\nWants="+s.name+"\nAfter="+s.name+"\n[Service]\nType=oneshot\nRemainAfterExit=yes\n"+
		"ExecStart="+binaries.pinfold+" --socket "+s.socket()+" ps\n")
	t.Cleanup(func() {
		for _, unit := range []string{"pinfold-e2e-kubelet.service", s.name} {
			_ = exec.Command("systemctl", "stop", unit).Run()
			_ = os.Remove("/run/systemd/system/" + unit)
		}
		_ = exec.Command("systemctl", "daemon-reload").Run()
		if t.Failed() {
			log, _ := os.ReadFile(s.path("daemon.log"))
			t.Logf("the daemon's log ends:\n%s", log[max(0, len(log)-6000):])
		}
	})
	s.systemctl("daemon-reload")
	return s
}

func (s *service) unit(name, text string) {
	s.t.Helper()
	s.check(os.WriteFile("/run/systemd/system/"+name, []byte(text), 0o644))
}

func (s *service) systemctl(args ...string) {
	s.t.Helper()
	if out, err := exec.Command("systemctl", args...).CombinedOutput(); err != nil {
		s.t.Fatalf("systemctl %v: %v: %s", args, err, out)
	}
}

// show is a property of the unit.
func (s *service) show(property string) string {
	out, _ := exec.Command("systemctl", "show", "--value", "--property="+property, s.name).Output()
	return strings.TrimSpace(string(out))
}

func (s *service) mainPID() int {
	pid, _ := strconv.Atoi(s.show("MainPID"))
	return pid
}

// active waits until the unit is active, and then the socket must answer at once.
func (s *service) active() {
	s.t.Helper()
	if err := s.until("an active unit", func() bool { return s.show("ActiveState") == "active" }); err != nil {
		s.t.Fatalf("%v: %s %s", err, s.show("ActiveState"), s.show("Result"))
	}
	s.connect()
	if _, err := s.runtime.Version(s.ctx(), &runtimeapi.VersionRequest{}); err != nil {
		s.t.Errorf("the unit is active, and the socket does not answer: %v", err)
	}
}

func TestTheServiceUnderSystemd(t *testing.T) {
	s := newService(t)
	s.systemctl("start", "pinfold-e2e-kubelet.service") // fails if it does not find the socket
	s.active()
	if text := s.show("StatusText"); !strings.HasPrefix(text, "Serving CRI on ") {
		t.Errorf("the status is %q", text)
	}
	if environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", s.mainPID())); err != nil || !strings.Contains(string(environ), "HTTPS_PROXY=http://proxy.invalid:1") {
		t.Errorf("the environment file: %v, %q", err, environ)
	}
	s.loadImage()
	c := s.runContainerOf(s.runPodOf(s.podConfig("p", "host-network")), sleeper("c"))
	running := func(when string) {
		t.Helper()
		if status, err := s.containerStatus(c); err != nil || status.GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING {
			t.Errorf("%s: %v, %v", when, status.GetState(), err)
		}
	}

	s.write("etc/conf.d/10.toml", "pinned_images = ['*']\n")
	s.systemctl("reload", s.name) // returns when the daemon has done it
	if img := s.imageStatus(busybox); !img.GetPinned() {
		t.Errorf("after a reload: %v", img)
	}

	before := s.mainPID()
	s.check(syscall.Kill(before, syscall.SIGSTOP)) // it hangs, with all its threads
	if err := s.until("another daemon", func() bool { pid := s.mainPID(); return pid != 0 && pid != before }); err != nil {
		t.Fatal(err)
	}
	s.active()
	running("after the watchdog")

	s.write("etc/conf.d/20.toml", "rot = 1\n")
	s.check(exec.Command("systemctl", "kill", "--kill-who=main", "--signal=KILL", s.name).Run())
	restarts, _ := strconv.Atoi(s.show("NRestarts"))
	s.check(s.until("seven bad starts", func() bool {
		now, _ := strconv.Atoi(s.show("NRestarts"))
		return now >= restarts+7
	}))
	if state := s.show("ActiveState"); state == "failed" {
		t.Errorf("after seven bad starts it is %s", state)
	}
	s.check(os.Remove(s.path("etc/conf.d/20.toml")))
	s.active()
	running("after bad starts")
	s.check(s.removeAll())
}
