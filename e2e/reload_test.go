package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// configured gives the node a configuration file with the usual values, and more.
func (n *node) configured(more string) {
	n.t.Helper()
	n.file = n.path("etc/config.toml")
	n.check(os.MkdirAll(n.path("etc/conf.d"), 0o755))
	n.write("etc/config.toml", fmt.Sprintf("root = %q\nstate = %q\nsocket = %q\nnetns_dir = %q\ncni_bin_dir = %q\ncgroup_driver = %q\ndefault_runtime = %q\n%s",
		n.path("root"), n.path("state"), n.socket(), n.path("netns"), binaries.cniBin, cgroupDriver(), binaries.handler, more))
}

const reread = "the configuration was read again"

// reload sends SIGHUP and waits until the log says how it went.
func (n *node) reload(says string) {
	n.t.Helper()
	before := strings.Count(n.log.String(), says)
	n.check(n.daemon.Process.Signal(syscall.SIGHUP))
	if err := n.until(says, func() bool { return strings.Count(n.log.String(), says) > before }); err != nil {
		n.t.Fatalf("%v:\n%s", err, n.log.tail())
	}
}

// handlers are the names of the node's runtime handlers.
func (n *node) handlers() (names []string) {
	n.t.Helper()
	resp, err := n.runtime.Status(n.ctx(), &runtimeapi.StatusRequest{})
	n.check(err)
	for _, h := range resp.RuntimeHandlers {
		names = append(names, h.Name)
	}
	return names
}

// networkReady is the node's condition, with its message.
func (n *node) networkReady() (bool, string) {
	resp, err := n.runtime.Status(n.ctx(), &runtimeapi.StatusRequest{})
	n.check(err)
	for _, c := range resp.GetStatus().GetConditions() {
		if c.Type == "NetworkReady" {
			return c.Status, c.Message
		}
	}
	return false, "there is no such condition"
}

func TestSIGHUPReloadsWhatCanChangeAndSaysWhatCannot(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	other := n.path("other-runtime")
	copyFile(t, binaries.runtime, other)
	cni := fmt.Sprintf("cni_conf_dir = %q\n", n.path("cni"))
	usual := fmt.Sprintf("[runtimes]\n%s = %q\n", binaries.handler, binaries.runtime)
	n.configured(cni + usual + fmt.Sprintf("other = %q\n", other))
	n.launch()
	n.loadImage()
	run, err := n.runtime.RunPodSandbox(n.ctx(), &runtimeapi.RunPodSandboxRequest{Config: n.podConfig("p"), RuntimeHandler: "other"})
	n.check(err)
	pod := run.PodSandboxId
	c := n.runContainerOf(pod, sleeper("c"))
	if strings.Contains(n.log.String(), "level=DEBUG") || slices.Contains(n.imagePins(), true) {
		t.Fatalf("the test begins with what it wants to change")
	}

	// A handler goes, another comes; images are pinned; the log says more.
	n.configured(cni + "pinned_images = ['*busybox*']\nlog_level = 'DEBUG'\n" + usual + fmt.Sprintf("third = %q\n", binaries.runtime))
	n.reload(reread)
	if got := n.handlers(); !slices.Contains(got, "third") || slices.Contains(got, "other") {
		t.Errorf("handlers %q", got)
	}
	if got := n.imagePins(); !slices.Contains(got, true) {
		t.Errorf("pinned: %v", got)
	}
	for _, says := range []string{"key=log_level", "key=pinned_images", "key=runtimes", "changed=3 need_restart=0", n.file} {
		if !strings.Contains(n.log.String(), says) {
			t.Errorf("the log does not say %s:\n%s", says, n.log.tail())
		}
	}
	// The pod of the handler that went goes on, with new containers too.
	n.says(c, "echo works", "works")
	n.says(n.runContainerOf(pod, sleeper("d")), "echo too", "too")
	if err := n.tryPod(n.podConfig("q"), "other"); status.Code(err) != codes.NotFound {
		t.Errorf("a new pod of a handler that is gone: %v", err)
	}
	if !strings.Contains(n.log.String(), "level=DEBUG") {
		t.Error("the level has not changed")
	}
	n.endPod(pod)
	n.check(os.RemoveAll(n.path("state/runtime/other")))

	n.reloadsDirectories(usual)
	n.keepsItsConfiguration(usual)
}

func (n *node) imagePins() (pins []bool) {
	n.t.Helper()
	resp, err := n.images.ListImages(n.ctx(), &runtimeapi.ListImagesRequest{})
	n.check(err)
	for _, img := range resp.Images {
		pins = append(pins, img.Pinned)
	}
	return pins
}

// reloadsDirectories changes those of networks and registries.
func (n *node) reloadsDirectories(usual string) {
	n.t.Helper()
	empty := n.path("no-networks")
	n.check(os.Mkdir(empty, 0o755))
	n.check(os.MkdirAll(n.path("mirrors/registry.invalid"), 0o755))
	n.write("mirrors/registry.invalid/hosts.toml", "server = 7\n")
	n.configured(fmt.Sprintf("cni_conf_dir = %q\nregistry_config_dir = %q\n", empty, n.path("mirrors")) + usual)
	n.reload(reread)
	n.check(n.until("no network", func() bool { ready, why := n.networkReady(); return !ready && strings.Contains(why, empty) }))
	_, err := n.images.PullImage(n.ctx(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: "registry.invalid/x:1"}})
	if err == nil || !strings.Contains(err.Error(), n.path("mirrors/registry.invalid/hosts.toml")) {
		n.t.Errorf("the new directory of registries is not read: %v", err)
	}
	// A drop-in comes after the file.
	n.write("etc/conf.d/10-network.toml", fmt.Sprintf("cni_conf_dir = %q\n", n.path("cni")))
	n.reload(reread)
	n.check(n.until("the network", func() bool { ready, _ := n.networkReady(); return ready }))
	n.endPod(n.runPodOf(n.podConfig("r")))
}

// keepsItsConfiguration tries files that cannot be used, and a change that needs a restart.
func (n *node) keepsItsConfiguration(usual string) {
	n.t.Helper()
	dropIn := n.path("etc/conf.d/20-bad.toml")
	const refused = "the configuration is not usable; the one from before stays in force"
	for name, make := range map[string]func() error{
		"unknown key": func() error { return os.WriteFile(dropIn, []byte("rot = 1\n"), 0o600) },
		"no TOML":     func() error { return os.WriteFile(dropIn, []byte("\xff\n"), 0o600) },
		"FIFO":        func() error { return unix.Mkfifo(dropIn, 0o600) },
		"directory":   func() error { return os.Mkdir(dropIn, 0o700) },
		"no default":  func() error { return os.WriteFile(dropIn, []byte("default_runtime = 'x'\n"), 0o600) },
	} {
		n.check(make())
		n.reload(refused)
		if !strings.Contains(n.log.tail(), "20-bad.toml") {
			n.t.Errorf("%s: the log does not name the file:\n%s", name, n.log.tail())
		}
		if got := n.handlers(); !slices.Contains(got, binaries.handler) {
			n.t.Errorf("%s: handlers %q", name, got)
		}
		n.check(os.RemoveAll(dropIn))
	}
	n.configured("nri_socket = ''\n" + usual)
	n.reload("a change of the configuration needs a restart of the daemon")
	if !strings.Contains(n.log.tail(), "key=nri_socket") {
		n.t.Errorf("the log does not say what needs a restart:\n%s", n.log.tail())
	}
	if _, err := os.Stat(n.path("state/nri.sock")); err != nil {
		n.t.Errorf("what needs a restart was done: %v", err)
	}
}

func TestSIGHUPNeverEndsTheDaemon(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.configured(fmt.Sprintf("cni_conf_dir = %q\n[runtimes]\n%s = %q\n", n.path("cni"), binaries.handler, binaries.runtime))
	n.launch()
	n.loadImage()
	pod := n.runPodOf(n.podConfig("p"))
	c := n.runContainerOf(pod, sleeper("c"))
	n.signal(syscall.SIGTERM)
	starts := strings.Count(n.log.String(), "pinfoldd starts")
	// From the start on: before it serves, while it serves, while it ends.
	daemon := exec.Command(binaries.pinfoldd, n.arguments()...)
	daemon.Stderr = n.log
	n.check(daemon.Start())
	// The handler is there before the first line of the log. (Go's own handlers are there even before main, and end the
	// process.)
	n.check(n.until("the first line of the log", func() bool { return strings.Count(n.log.String(), "pinfoldd starts") > starts }))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				_ = daemon.Process.Signal(syscall.SIGHUP)
			}
		}
	}()
	n.connect()
	if _, err := n.runtime.Version(n.ctx(), &runtimeapi.VersionRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Errorf("it does not serve: %v", err)
	}
	n.says(c, "echo works", "works")
	n.check(n.until("a reload", func() bool { return strings.Contains(n.log.String(), reread) }))
	n.check(daemon.Process.Signal(syscall.SIGTERM))
	err := daemon.Wait()
	close(stop)
	<-stopped
	if err != nil {
		t.Errorf("it ended with %v:\n%s", err, n.log.tail())
	}
	n.launch()
	n.endPod(pod)
}

func TestTheConfigurationIsShownAndCheckedWithoutADaemon(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.configured(fmt.Sprintf("cni_conf_dir = %q\nregistry_config_dir = %q\n[runtimes]\n%s = %q\n", n.path("cni"), n.path("certs.d"), binaries.handler, binaries.runtime))
	run := func(args ...string) (string, int) {
		command := exec.Command(binaries.pinfoldd, append(args, "--config", n.file)...)
		out, _ := command.CombinedOutput()
		return string(out), command.ProcessState.ExitCode()
	}
	if out, code := run("config", "check", "--strict"); code != 0 || out != "" {
		t.Errorf("a good configuration: %d, %s", code, out)
	}
	shown, code := run("config", "show")
	if code != 0 || !strings.Contains(shown, fmt.Sprintf("root = %q # %s:1:1\n", n.path("root"), n.file)) {
		t.Errorf("show: %d, %s", code, shown)
	}
	n.write("etc/conf.d/10.toml", "runtimes.missing = '/no/such/runtime'\n")
	n.check(os.MkdirAll(n.path("certs.d/registry.invalid"), 0o755))
	n.write("certs.d/registry.invalid/hosts.toml", "servr = 'x'\n")
	out, code := run("config", "check")
	if code != 0 || !strings.Contains(out, "warning: runtimes: missing: stat /no/such/runtime") || !strings.Contains(out, "hosts.toml") {
		t.Errorf("warnings: %d, %s", code, out)
	}
	if out, code := run("config", "check", "--strict"); code != 1 {
		t.Errorf("warnings that are errors: %d, %s", code, out)
	}
	n.write("file", "")
	n.write("etc/conf.d/20.toml", fmt.Sprintf("state = %q\npinder = '/no/such/pinder'\n", n.path("file/state")))
	if out, code := run("config", "check"); code != 1 || !strings.Contains(out, "state: ") || !strings.Contains(out, "pinder: ") {
		t.Errorf("errors: %d, %s", code, out)
	}
	n.write("etc/conf.d/30.toml", "rot = 1\n")
	if out, code := run("config", "check"); code != 1 || !strings.Contains(out, n.path("etc/conf.d/30.toml:1:1")) {
		t.Errorf("a bad file: %d, %s", code, out)
	}
	for _, args := range [][]string{{"config"}, {"config", "check", "x"}, {"config", "show", "--no-such-flag"}} {
		if out, code := run(args...); code != 64 {
			t.Errorf("%q: %d, %s", args, code, out)
		}
	}
	// It had no effect.
	for _, dir := range []string{"root", "state", "netns"} {
		if _, err := os.Stat(filepath.Join(n.dir, dir)); !os.IsNotExist(err) {
			t.Errorf("%s was made: %v", dir, err)
		}
	}
}
