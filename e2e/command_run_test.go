package e2e

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// running is a command "pinfold" that a test started.
type running struct {
	n         *node
	cmd       *exec.Cmd
	out, errs logBuffer
	ended     chan struct{}
}

// preparePinfold prepares the operator's command.
func (n *node) preparePinfold(args ...string) *running {
	r := &running{n: n, ended: make(chan struct{})}
	r.cmd = exec.Command(binaries.pinfold, append([]string{"--socket", n.socket()}, args...)...)
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.errs
	r.cmd.Env = append(os.Environ(), "REGISTRY_AUTH_FILE="+n.authFile)
	return r
}

func (r *running) start() *running {
	r.n.t.Helper()
	if err := r.cmd.Start(); err != nil {
		r.n.t.Fatal(err)
	}
	go func() { _ = r.cmd.Wait(); close(r.ended) }()
	r.n.t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-r.ended
	})
	return r
}

func (n *node) startPinfold(args ...string) *running { return n.preparePinfold(args...).start() }

// startRun starts pinfold run in a pod with a log below the node's directory.
func (n *node) startRun(args ...string) *running {
	n.t.Helper()
	return n.startPinfold(append([]string{"run", "--userns-range", "3000000:131072", "--log-dir", n.path("logs")}, args...)...)
}

// writeAuthFile makes credentials of a registry, in Docker's form, for commands that start from now on.
func (n *node) writeAuthFile(host string) {
	n.t.Helper()
	n.authFile = n.path("auth.json")
	n.write("auth.json", fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte("user:"+secret))))
}

// code waits for the end of the command.
func (r *running) code() int {
	r.n.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(readyTimeout):
		r.n.t.Fatalf("the command does not end; it said %q %q", r.out.String(), r.errs.String())
	}
	return r.cmd.ProcessState.ExitCode()
}

// says waits until the command has written a text.
func (r *running) says(text string) {
	r.n.t.Helper()
	if err := r.n.until(fmt.Sprintf("%q", text), func() bool { return strings.Contains(r.out.String()+r.errs.String(), text) }); err != nil {
		r.n.t.Fatalf("%v; the command says %q %q", err, r.out.String(), r.errs.String())
	}
}

// nothingOfRuns checks that there is no pod and no log.
func (n *node) nothingOfRuns() error {
	list, err := n.runtime.ListPodSandbox(n.ctx(), &runtimeapi.ListPodSandboxRequest{})
	if err == nil && len(list.Items) > 0 {
		err = fmt.Errorf("pods are left: %v", list.Items)
	}
	logs, err2 := os.ReadDir(n.path("logs"))
	if len(logs) > 0 {
		err2 = fmt.Errorf("logs are left: %v", logs)
	}
	var err3 error
	if exists(n.socket() + ".logs") {
		err3 = errors.New("the list of logs is left")
	}
	return errors.Join(err, err2, err3)
}

func TestPinfoldRunLeavesNothingWhereverItIsInterrupted(t *testing.T) {
	t.Parallel()
	n := newCrashNode(t)
	points := map[string][]string{
		"RunPodSandbox":   {"record", "namespaces", "files", "network", "sysctls", "init", "plugins", "ready"},
		"CreateContainer": {"record", "image", "rootfs", "volumes", "bundle", "plugins", "binds", "runtime create", "created"},
		"StartContainer":  {"renew", "plugins", "runtime start", "running"},
	}
	signals := []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP}
	turn := 0
	for operation, steps := range points {
		at := []string{operation + ":" + steps[len(steps)-1] + ":after"}
		for _, step := range steps {
			at = append(at, operation+":"+step+":before")
		}
		for _, point := range at {
			turn++
			n.interruptAt(point, signals[turn%len(signals)])
			if err := n.nothingOfRuns(); err != nil {
				t.Errorf("interrupted at %s: %v", point, err)
			}
		}
	}
}

// interruptAt interrupts a run while the daemon waits at a point.
func (n *crashNode) interruptAt(point string, s syscall.Signal) {
	n.t.Helper()
	stop := n.armed()
	defer stop.close()
	n.order(point, "pause")
	r := n.startRun(busybox, "--", "sleep", "1000")
	var pid int
	select {
	case pid = <-stop.pid:
	case <-r.ended:
		n.t.Errorf("%s was not reached: %s", point, r.errs.String())
		return
	}
	_ = r.cmd.Process.Signal(s)
	r.says("interrupted: ")
	stop.release()
	if code := r.code(); code != 128+int(s) {
		n.t.Errorf("interrupted at %s by %v: exit code %d: %s", point, s, code, r.errs.String())
	}
	if err := n.until("the daemon to go on", func() bool { return stop.goesOn(pid) }); err != nil {
		n.t.Error(err)
	}
}

func TestPinfoldRunInterruptedWhileItPullsLeavesNothing(t *testing.T) {
	t.Parallel()
	host, release := gatedRegistry(t)
	n := newNode(t)
	n.launch()
	n.writeAuthFile(host)
	r := n.startRun("--pull", host+"/library/busybox:1", "--", "true")
	if err := n.until("the pull", func() bool { out, _ := n.pinfold("why"); return strings.Contains(out, "0 of 2 layers") }); err != nil {
		t.Fatal(err)
	}
	_ = r.cmd.Process.Signal(syscall.SIGINT)
	if code := r.code(); code != 130 {
		t.Errorf("exit code %d: %s", code, r.errs.String())
	}
	release()
	if err := n.nothingOfRuns(); err != nil {
		t.Error(err)
	}
}

func TestASignalToPinfoldRunStopsTheContainerAndASecondKillsIt(t *testing.T) {
	t.Parallel()
	n := started(t)
	// The first signal is the container's TERM; its own exit code is returned.
	r := n.startRun(busybox, "--", "sh", "-c", `trap "echo bye; exit 7" TERM; echo up; while :; do sleep 0.02; done`)
	r.says("up\n")
	_ = r.cmd.Process.Signal(syscall.SIGINT)
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	if code := r.code(); code != 7 || r.out.String() != "up\nbye\n" {
		t.Errorf("one that ends on TERM: exit code %d: %q %q", code, r.out.String(), r.errs.String())
	}
	stubborn := []string{busybox, "--", "sh", "-c", `trap "echo no" TERM; echo up; while :; do sleep 0.02; done`}
	// After the grace period comes KILL.
	r = n.startRun(append([]string{"--stop-timeout", "1s"}, stubborn...)...)
	r.says("up\n")
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	if code := r.code(); code != 137 || !strings.Contains(r.out.String(), "no\n") {
		t.Errorf("one that ignores TERM: exit code %d: %q %q", code, r.out.String(), r.errs.String())
	}
	// The second signal does not wait.
	r = n.startRun(append([]string{"--stop-timeout", "1h"}, stubborn...)...)
	r.says("up\n")
	_ = r.cmd.Process.Signal(syscall.SIGINT)
	r.says("no\n")
	time.Sleep(300 * time.Millisecond) // what comes at once is the first once more, as from timeout(1)
	_ = r.cmd.Process.Signal(syscall.SIGINT)
	if code := r.code(); code != 137 {
		t.Errorf("after a second signal: exit code %d: %q %q", code, r.out.String(), r.errs.String())
	}
	if err := n.nothingOfRuns(); err != nil {
		t.Error(err)
	}
}

func TestPinfoldRunThatIsKilledLeavesAPodThatPsShowsAndRmRemoves(t *testing.T) {
	t.Parallel()
	n := started(t)
	r := n.startRun("--name", "orphan", busybox, "--", "sh", "-c", "echo up; exec sleep 1000")
	r.says("up\n")
	_ = r.cmd.Process.Kill()
	<-r.ended
	if out, code := n.pinfold("ps"); code != 0 || !strings.Contains(out, "pinfold/orphan") {
		t.Errorf("ps: exit code %d: %s", code, out)
	}
	if out, code := n.pinfold("rm", "--time", "0", "--all"); code != 0 {
		t.Errorf("rm: exit code %d: %s", code, out)
	}
	if err := n.nothingOfRuns(); err != nil {
		t.Error(err)
	}
}

func TestPinfoldRunGoesOnWhileTheDaemonIsReplaced(t *testing.T) {
	t.Parallel()
	n := started(t)
	r := n.startRun(busybox, "--", "sh", "-c", "echo up; while [ ! -e /go ]; do sleep 0.02; done; echo end; exit 9")
	r.says("up\n")
	n.kill()
	n.launch()
	list, err := n.runtime.ListPodSandbox(n.ctx(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil || len(list.Items) != 1 {
		t.Fatalf("%v %v", list, err)
	}
	if out, code := n.pinfold("exec", list.Items[0].Id, "--", "touch", "/go"); code != 0 {
		t.Fatalf("exec: %s", out)
	}
	if code := r.code(); code != 9 || r.out.String() != "up\nend\n" {
		t.Errorf("exit code %d: %q %q", code, r.out.String(), r.errs.String())
	}
	if err := n.nothingOfRuns(); err != nil {
		t.Error(err)
	}
}

func TestPinfoldRunTakesVariablesVolumesPortsLimitsAndAUser(t *testing.T) {
	t.Parallel()
	n := started(t)
	n.write("volumes/in", "from the node\n")
	n.write("env", "# file\nB=two words\n")
	n.check(os.Chmod(n.path("volumes"), 0o777))
	r := n.startRun("-e", "A=1", "--env-file", n.path("env"), "-v", n.path("volumes")+":/data", "-v", n.path("volumes")+":/ro:ro", "-m", "64Mi", "--cpus", "0.5",
		"--user", "1234:5678", "-w", "/data", "-l", "team=a", busybox, "--", "sh", "-c",
		`echo "$A,$B"; pwd; id -u; id -g; cat in; (echo x >/ro/out) 2>/dev/null || echo read-only; echo out >out; touch ready; while [ ! -e go ]; do sleep 0.02; done`)
	if err := n.until("the container", func() bool { return exists(n.path("volumes/ready")) }); err != nil {
		t.Fatal(err, r.errs.String())
	}
	list, err := n.runtime.ListContainers(n.ctx(), &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{LabelSelector: map[string]string{"team": "a"}}})
	if err != nil || len(list.Containers) != 1 {
		t.Fatalf("%v %v", list, err)
	}
	status, err := n.containerStatus(list.Containers[0].Id)
	if limits := status.GetResources().GetLinux(); err != nil || limits.GetMemoryLimitInBytes() != 64<<20 || limits.GetCpuQuota() != 50_000 || limits.GetCpuPeriod() != 100_000 {
		t.Errorf("limits: %v %v", limits, err)
	}
	n.write("volumes/go", "")
	if code := r.code(); code != 0 || r.out.String() != "1,two words\n/data\n1234\n5678\nfrom the node\nread-only\n" {
		t.Errorf("exit code %d: %q %q", code, r.out.String(), r.errs.String())
	}
}

func TestPinfoldImagePullTakesCredentialsThatItNeverShowsAndTellsHowFarItIs(t *testing.T) {
	t.Parallel()
	host, release := gatedRegistry(t)
	n := newNode(t)
	n.launch()
	ref := host + "/library/busybox:1"
	pull := func(in string, args ...string) *running {
		r := n.preparePinfold(append([]string{"image", "pull"}, args...)...)
		r.cmd.Stdin = strings.NewReader(in)
		return r.start()
	}
	for _, r := range []*running{
		pull("wrong-password\n", "--creds", "user", ref), pull("", "--creds", "user:wrong-password", ref), pull("", ref), pull("", "--creds", "user", ref),
	} {
		if code := r.code(); code != 1 || strings.Contains(r.errs.String(), "wrong-password") || strings.Contains(r.errs.String(), "rpc error") {
			t.Errorf("%v: exit code %d: %q", r.cmd.Args, code, r.errs.String())
		}
	}
	r := pull(secret+"\n", "--creds", "user", ref)
	r.says("0 of 2 layers unpacked")
	release()
	if code := r.code(); code != 0 || !strings.HasPrefix(r.out.String(), "sha256:") || !strings.Contains(r.errs.String(), ref+": [") {
		t.Errorf("exit code %d: %q %q", code, r.out.String(), r.errs.String())
	}
	if out, code := n.pinfold("image", "rm", ref); code != 0 {
		t.Errorf("rm: exit code %d: %s", code, out)
	}
	n.writeAuthFile(host)
	r = pull("", "--quiet", ref)
	if code := r.code(); code != 0 || r.errs.String() != "" {
		t.Errorf("from a file: exit code %d: %q", code, r.errs.String())
	}
	if out, code := n.pinfold("image", "list"); code != 0 || !strings.Contains(out, "DIGEST") || !strings.Contains(out, ref) {
		t.Errorf("list: exit code %d: %s", code, out)
	}
	if out, code := n.pinfold("image", "rm", "nosuch:1", ref); code != 1 || !strings.Contains(out, "nosuch:1: there is no such image") || n.imageStatus(ref) != nil {
		t.Errorf("rm of several: exit code %d: %s", code, out)
	}
	if strings.Contains(n.log.String(), secret) {
		t.Error("the credential is in the daemon's log")
	}
}

func TestPinfoldExecPassesInputOutputOfAnySizeAndTheExitCode(t *testing.T) {
	t.Parallel()
	n := started(t)
	if out, code := n.pinfold("run", "--userns-range", "3000000:131072", "--keep", "--log-dir", n.path("logs"), "--name", "p", busybox, "--", "sleep", "1000"); code != 0 {
		t.Fatal(out)
	}
	const size = 9 << 20
	r := n.preparePinfold("exec", "-i", "p", "--", "sh", "-c", "cat; echo end >&2; exit 9")
	r.cmd.Stdin = strings.NewReader(strings.Repeat("0123456\n", size/8))
	if code := r.start().code(); code != 9 || len(r.out.String()) != size || r.errs.String() != "end\n" {
		t.Errorf("exit code %d, %d bytes of %d, %q", code, len(r.out.String()), size, r.errs.String())
	}
	r = n.startPinfold("exec", "-t", "p", "--", "sh", "-c", "tty; exit 3")
	if code := r.code(); code != 3 || !strings.Contains(r.out.String(), "/dev/pts/") {
		t.Errorf("with a terminal: exit code %d: %q %q", code, r.out.String(), r.errs.String())
	}
	if out, code := n.pinfold("rm", "--time", "0", "p"); code != 0 {
		t.Error(out)
	}
}

func TestPinfoldRunPassesStandardInputAndATerminal(t *testing.T) {
	t.Parallel()
	n := started(t)
	run := func(in string, args ...string) *running {
		r := n.preparePinfold(append([]string{"run", "--userns-range", "3000000:131072", "--log-dir", n.path("logs")}, args...)...)
		r.cmd.Stdin = strings.NewReader(in)
		return r.start()
	}
	r := run("one\ntwo\n", "-i", busybox, "--", "sh", "-c", "cat; echo end >&2; exit 4")
	if code := r.code(); code != 4 || r.out.String() != "one\ntwo\n" || r.errs.String() != "end\n" {
		t.Errorf("input: exit code %d: %q %q", code, r.out.String(), r.errs.String())
	}
	r = run("one\n", busybox, "--", "cat")
	if code := r.code(); code != 0 || r.out.String() != "" {
		t.Errorf("without -i: exit code %d: %q", code, r.out.String())
	}
	r = run("", "-t", busybox, "--", "sh", "-c", "tty; exit 5")
	if code := r.code(); code != 5 || r.out.String() != "/dev/pts/0\r\n" {
		t.Errorf("terminal: exit code %d: %q %q", code, r.out.String(), r.errs.String())
	}
	if err := n.nothingOfRuns(); err != nil {
		t.Error(err)
	}
}

func TestPinfoldStatusExitsWithOneAndSaysWhatIsNotReady(t *testing.T) {
	t.Parallel()
	n := started(t)
	if out, code := n.pinfold("status"); code != 0 || !strings.Contains(out, "NetworkReady  true") {
		t.Errorf("a node that is ready: exit code %d: %s", code, out)
	}
	remove(t, n.path("cni/10-test.conflist"))
	var out string
	err := n.until("exit code 1", func() (yes bool) {
		var code int
		out, code = n.pinfold("status", "-o", "json")
		return code == 1
	})
	if err != nil || !strings.Contains(out, `"status": false`) || !strings.Contains(out, "pinfold: the node is not ready: NetworkReady is false: ") || !strings.Contains(out, n.path("cni")) {
		t.Errorf("%v: %s", err, out)
	}
}
