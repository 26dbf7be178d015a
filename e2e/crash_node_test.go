package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// crashNode is a node whose steps, runtime and plugins can be stopped at a chosen point. It has a
// second pod, the bystander, that the killed operation must not affect.
type crashNode struct {
	*node
	subjects int

	bystander struct {
		pod, container, log string
		ips                 []string
		read                int // how many log lines were read
	}
	// base is the host with only the bystander on it.
	base hostState
	// ids are the IDs in this daemon's log, as far as it was read.
	ids    map[string]bool
	idsEnd int
	// mark is where the log of this case begins.
	mark int
}

// puppets are the programs that the puppet replaces. "runc" is the OCI runtime, also if that is
// crun.
var puppets = []string{"runc", "bridge", "host-local", "portmap"}

// buildPuppet makes the puppet once for all nodes.
var buildPuppet = sync.OnceValues(func() (string, error) {
	return filepath.Join(binaries.dir, "puppet"), goBuild(binaries.dir, "testdata", "puppet")
})

// newCrashNode starts such a node, without the bystander.
func newCrashNode(t *testing.T) *crashNode {
	t.Helper()
	return makeCrashNode(t, true)
}

// makeCrashNode has puppets for the CNI plugins, or the plugins themselves, whose work is then done in process.
func makeCrashNode(t *testing.T, plugins bool) *crashNode {
	t.Helper()
	n := &crashNode{node: newNode(t), ids: map[string]bool{}}
	n.installPuppets()
	bins := binaries.cniBin
	if plugins {
		bins = n.fault()
	}
	n.flags = []string{"--runtime", binaries.handler + "=" + n.fault("runc"), "--cni-bin-dir", bins}
	n.env = []string{"PINFOLD_FAILPOINTS=" + n.fault()}
	n.launch()
	n.loadImage()
	return n
}

// fault is the directory of orders, or a path in it.
func (n *crashNode) fault(parts ...string) string {
	return n.path(append([]string{"faults"}, parts...)...)
}

func (n *crashNode) installPuppets() {
	n.t.Helper()
	puppet, err := buildPuppet()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := os.MkdirAll(n.fault("real"), 0o755); err != nil {
		n.t.Fatal(err)
	}
	for _, name := range puppets {
		real := filepath.Join(binaries.cniBin, name)
		if name == "runc" {
			real = binaries.runtime
		}
		if err := os.Symlink(real, n.fault("real", name)); err != nil {
			n.t.Fatal(err)
		}
		copyFile(n.t, puppet, n.fault(name))
	}
}

// order writes an order for a fail point or a puppet.
func (n *crashNode) order(point, text string) { n.write("faults/"+point, text) }

// stopping is a point at which a process waits for the test.
type stopping struct {
	reached, proceed *os.File
	pid              chan int
}

// armed makes the FIFOs that an order "pause" uses. The caller closes what it returns.
func (n *crashNode) armed() *stopping {
	n.t.Helper()
	s := &stopping{pid: make(chan int, 1)}
	for name, end := range map[string]**os.File{"reached": &s.reached, "go": &s.proceed} {
		path := n.fault(name)
		_ = os.Remove(path)
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			n.t.Fatal(err)
		}
		// Open both ends, so that neither side blocks in open.
		f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
		if err != nil {
			n.t.Fatal(err)
		}
		*end = f
	}
	go func() {
		var pid int
		if _, err := fmt.Fscanln(s.reached, &pid); err == nil {
			s.pid <- pid
		}
	}()
	return s
}

// proceed is what a stopped process waits for. It reads one byte or all.
const proceed = "go"

// release lets the process go on that waits now, or the next one.
func (s *stopping) release() { _, _ = s.proceed.WriteString(proceed) }

// goesOn reports whether the stopped process has read what release wrote, or has ended. If the FIFO is closed
// earlier, the text is lost and its reader waits for ever.
func (s *stopping) goesOn(pid int) bool {
	left := 0
	conn, err := s.proceed.SyscallConn()
	if err == nil {
		_ = conn.Control(func(fd uintptr) { left, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	}
	if err == nil && left < len(proceed) {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func (s *stopping) close() {
	s.reached.Close()
	s.proceed.Close()
}

// disarm removes orders that were not carried out, and names them.
func (n *crashNode) disarm() []string {
	found, _ := filepath.Glob(n.fault("*:*"))
	for _, path := range found {
		_ = os.Remove(path)
	}
	return found
}

// isPinder reports whether a line is a process of pinder.
func (n *crashNode) isPinder(line string) bool {
	_, command, _ := strings.Cut(line, ": ")
	return strings.HasPrefix(command, "pinder ") && strings.Contains(command, " --state "+n.path("state"))
}

// pinders are the process IDs of reaper and supervisor.
func (n *crashNode) pinders() (reaper, supervisor int, err error) {
	parent := map[int]int{}
	for _, line := range n.processes() {
		var pid int
		if _, err := fmt.Sscanf(line, "process %d:", &pid); err != nil || !n.isPinder(line) {
			continue
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if fields[0] == "Z" {
			continue
		}
		parent[pid], _ = strconv.Atoi(fields[1])
	}
	for pid, up := range parent {
		// A child before its exec looks like its parent, the supervisor.
		if above, ok := parent[up]; ok && parent[above] == 0 {
			return up, pid, nil
		}
	}
	return 0, 0, fmt.Errorf("no pair of pinders: %v\n%s", parent, strings.Join(n.processes(), "\n"))
}

// addBystander makes the bystander: a container that prints numbers, or one that prints nothing.
func (n *crashNode) addBystander(talks bool) {
	n.t.Helper()
	b := &n.bystander
	config := n.podConfig("bystander", "userns")
	pod, err := n.runtime.RunPodSandbox(n.ctx(), &runtimeapi.RunPodSandboxRequest{Config: config})
	if err != nil {
		n.t.Fatal(err)
	}
	b.pod = pod.PodSandboxId
	script := "sleep 100000"
	if talks {
		script = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.03; done"
		b.log = n.path("logs/bystander/counts.log")
	}
	c, err := n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{
		PodSandboxId: b.pod, Config: containerConfig("counts", "sh", "-c", script),
	})
	if err == nil {
		b.container = c.ContainerId
		_, err = n.runtime.StartContainer(n.ctx(), &runtimeapi.StartContainerRequest{ContainerId: b.container})
	}
	if err != nil {
		n.t.Fatal(err)
	}
	b.ips, _ = n.addresses(b.pod)
	if len(b.ips) != 2 {
		n.t.Fatalf("the bystander's addresses: %v", b.ips)
	}
	n.base = n.state()
}

func (n *crashNode) addresses(pod string) ([]string, error) {
	resp, err := n.runtime.PodSandboxStatus(n.ctx(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod})
	if err != nil {
		return nil, err
	}
	s := resp.Status
	if s.State != runtimeapi.PodSandboxState_SANDBOX_READY {
		return nil, fmt.Errorf("pod %s is %s", pod, s.State)
	}
	ips := []string{s.GetNetwork().GetIp()}
	for _, ip := range s.GetNetwork().GetAdditionalIps() {
		ips = append(ips, ip.Ip)
	}
	return ips, nil
}

// bystanderUnharmed checks that the bystander is ready, has the same addresses, runs, and has
// printed each number once.
func (n *crashNode) bystanderUnharmed() error {
	b := &n.bystander
	ips, err := n.addresses(b.pod)
	if err != nil {
		return fmt.Errorf("bystander: %w", err)
	}
	if !slices.Equal(ips, b.ips) {
		return fmt.Errorf("bystander: addresses %v, before %v", ips, b.ips)
	}
	status, err := n.containerStatus(b.container)
	if err != nil {
		return fmt.Errorf("bystander: %w", err)
	}
	if status.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return fmt.Errorf("bystander: container is %s (%d, %s, %s)", status.State, status.ExitCode, status.Reason, status.Message)
	}
	if b.log == "" {
		return nil
	}
	if err := n.readCounts(); err != nil {
		return err
	}
	before := b.read
	return n.until("the bystander to go on counting", func() bool {
		err = n.readCounts()
		return err != nil || b.read > before
	})
}

// readCounts checks the bystander's log: each number once, in order.
func (n *crashNode) readCounts() error {
	data, err := os.ReadFile(n.bystander.log)
	if err != nil {
		return err
	}
	lines := strings.Split(string(data), "\n")
	lines = lines[:len(lines)-1] // the text after the last line end
	for i, line := range lines {
		_, said, _ := strings.Cut(line, " ")
		if want := fmt.Sprintf("stdout F %d", i); said != want {
			return fmt.Errorf("bystander: log line %d is %q, want %q", i, said, want)
		}
	}
	n.bystander.read = len(lines)
	return nil
}

// knownIDs are all IDs in this daemon's log.
func (n *crashNode) knownIDs() map[string]bool {
	text := n.log.String()
	for _, id := range anyID.FindAllString(text[n.idsEnd:], -1) {
		n.ids[id] = true
	}
	n.idsEnd = max(0, strings.LastIndexByte(text, '\n'))
	return n.ids
}

// state is hostState of this node only; other nodes use the same network namespace.
func (n *crashNode) state() hostState {
	s := hostState{}
	add := func(lines ...string) {
		for _, line := range lines {
			s[line] = true
		}
	}
	ids := n.knownIDs()
	for _, line := range mountLines() {
		if strings.Contains(line, n.dir) {
			add(line)
		}
	}
	for _, line := range n.rules() {
		if id := anyID.FindString(line); id == "" || ids[id] {
			add(line)
		}
	}
	for _, line := range n.processes() {
		if !n.isPinder(line) && !strings.Contains(line, binaries.pinfoldd+" ") {
			add(line + whatItDoes(line))
		}
	}
	for _, line := range n.cgroups() {
		if ids[strings.TrimPrefix(filepath.Base(line), "net-")] {
			add(line)
		}
	}
	add(n.veths()...)
	add(n.files()...)
	return s
}

// whatItDoes describes a process that should not exist.
func whatItDoes(line string) string {
	var pid int
	if _, err := fmt.Sscanf(line, "process %d:", &pid); err != nil {
		return ""
	}
	group, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	where, _ := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", pid))
	env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	var cni []string
	for v := range strings.SplitSeq(string(env), "\x00") {
		if strings.HasPrefix(v, "CNI_") {
			cni = append(cni, v)
		}
	}
	own := regexp.MustCompile(`0::.*`).FindString(string(group))
	return fmt.Sprintf(" (in cgroup %s, waits in %s, %v)", own, where, cni)
}

// veths are the interfaces on this node's bridge, and those on no bridge, which may belong to any
// node.
func (n *crashNode) veths() []string {
	out, _ := exec.Command("ip", "-o", "link").Output()
	var lines []string
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if !strings.HasPrefix(fields[1], "veth") {
			continue
		}
		if at := slices.Index(fields, "master"); at < 0 || fields[at+1] == n.bridge() {
			lines = append(lines, "link "+fields[1])
		}
	}
	return lines
}

// clean waits until the host has only the bystander.
func (n *crashNode) clean() error {
	var left []string
	err := n.until("a clean host", func() bool {
		left = nil
		for line := range n.state() {
			if !n.base[line] {
				left = append(left, line)
			}
		}
		return len(left) == 0
	})
	if err != nil {
		slices.Sort(left)
		return errors.New("left behind:\n    " + strings.Join(left, "\n    "))
	}
	return nil
}

// logFrom is the daemon's log after a mark.
func (n *crashNode) logFrom(mark int) string { return n.log.String()[mark:] }

func (n *crashNode) logMark() int { return len(n.log.String()) }

// endOfLog is the length of the log when it contains everything that was logged so far. The daemon
// writes its log in another goroutine, in order.
func (n *crashNode) endOfLog() int {
	n.t.Helper()
	last, since := -1, time.Now()
	_ = n.until("the log to be written", func() bool {
		if now := n.logMark(); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > slow(100*time.Millisecond)
	})
	return last
}

// within limits the time of an action that has no context.
func within(limit time.Duration, what string, done <-chan error) error {
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		return fmt.Errorf("%s did not end within %s", what, limit)
	}
}
