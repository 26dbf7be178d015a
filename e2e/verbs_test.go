package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// verbs are the commands of the scenarios. Adding one is adding a line and a function.
//
//	run-pod NAME [userns] [host-network] [shared-pid]   RunPodSandbox
//	create POD NAME [tty] [-- COMMAND…]                 CreateContainer from busybox
//	start NAME, stop NAME [SECONDS], remove NAME        of a container
//	stop-pod POD, remove-pod POD
//	exec NAME -- COMMAND…                               ExecSync: output, then "exit N"
//	wait NAME                                           until the container has ended
//	wait-log NAME TEXT…                                 until its log has that text
//	pod POD, container NAME, logs NAME, list            what CRI says now
//	kill-daemon, stop-daemon, start-daemon, reboot
//	crash OPERATION:STEP:PHASE                          the daemon kills itself at that point, the next time
//	addresses, wait-addresses COUNT                     what the address store holds
//	check                                               pinfold check
//	host                                                what is on the host that was not there before
var verbs map[string]func(p *play, args []string) (string, error)

func init() {
	verbs = map[string]func(p *play, args []string) (string, error){
		"run-pod": (*play).runPod, "stop-pod": (*play).stopPod, "remove-pod": (*play).removePod, "pod": (*play).pod,
		"create": (*play).create, "start": (*play).startContainer, "stop": (*play).stopContainer, "remove": (*play).removeContainer,
		"exec": (*play).exec, "wait": (*play).wait, "wait-log": (*play).waitLog, "container": (*play).container,
		"logs": (*play).logs, "list": (*play).list, "host": (*play).host, "ping": (*play).ping,
		"addresses": (*play).addressesHeld, "wait-addresses": (*play).waitAddresses, "crash": (*play).crash,
		"check":        func(p *play, _ []string) (string, error) { out, _ := p.pinfold("check"); return p.anonymous(out), nil },
		"reboot":       func(p *play, _ []string) (string, error) { p.boot(); return "rebooted", nil },
		"kill-daemon":  func(p *play, _ []string) (string, error) { p.kill(); return "killed", nil },
		"stop-daemon":  func(p *play, _ []string) (string, error) { p.signal(syscall.SIGTERM); return "ended", nil },
		"start-daemon": func(p *play, _ []string) (string, error) { p.launch(); return "serving", nil },
	}
}

// usernsBase is the first host id of the tests' pods with user namespaces.
const usernsBase = 200000

// podConfig is the configuration of a pod as the scenarios have it.
func (n *node) podConfig(name string, options ...string) *runtimeapi.PodSandboxConfig {
	ns := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}
	config := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "e2e", Uid: "uid-" + name},
		Hostname:     name,
		LogDirectory: n.path("logs", name),
		Linux:        &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: ns}},
	}
	if slices.Contains(options, "userns") {
		maps := []*runtimeapi.IDMapping{{HostId: usernsBase, ContainerId: 0, Length: 65536}}
		ns.UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: maps, Gids: maps}
	}
	if slices.Contains(options, "host-network") {
		ns.Network = runtimeapi.NamespaceMode_NODE
		config.Hostname = ""
	}
	if slices.Contains(options, "shared-pid") {
		ns.Pid = runtimeapi.NamespaceMode_POD
	}
	return config
}

func containerConfig(name string, command ...string) *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name},
		Image:    &runtimeapi.ImageSpec{Image: busybox},
		Command:  command,
		LogPath:  name + ".log",
		Linux:    &runtimeapi.LinuxContainerConfig{},
	}
}

func (p *play) runPod(args []string) (string, error) {
	resp, err := p.runtime.RunPodSandbox(p.ctx(), &runtimeapi.RunPodSandboxRequest{Config: p.podConfig(args[0], args[1:]...)})
	if err != nil {
		return "", err
	}
	verdict := "made"
	if p.pods[args[0]] == resp.PodSandboxId {
		verdict = "the same"
	}
	p.pods[args[0]] = resp.PodSandboxId
	return verdict, nil
}

func (p *play) stopPod(args []string) (string, error) {
	_, err := p.runtime.StopPodSandbox(p.ctx(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: p.pods[args[0]]})
	return done("stopped", err)
}

func (p *play) removePod(args []string) (string, error) {
	_, err := p.runtime.RemovePodSandbox(p.ctx(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p.pods[args[0]]})
	return done("removed", err)
}

func done(word string, err error) (string, error) {
	if err != nil {
		return "", err
	}
	return word, nil
}

// splitDash splits words at "--".
func splitDash(args []string) (before, after []string) {
	if i := slices.Index(args, "--"); i >= 0 {
		return args[:i], args[i+1:]
	}
	return args, nil
}

// command makes an argv of words. If the first word is sh, the rest is a shell command line.
func command(words []string) []string {
	if len(words) > 1 && words[0] == "sh" {
		return []string{"sh", "-c", strings.Join(words[1:], " ")}
	}
	return words
}

func (p *play) create(args []string) (string, error) {
	args, words := splitDash(args)
	pod, name := args[0], args[1]
	config := containerConfig(name, command(words)...)
	p.attempts++
	config.Metadata.Attempt = p.attempts
	config.Tty = slices.Contains(args, "tty")
	resp, err := p.runtime.CreateContainer(p.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: p.pods[pod], Config: config})
	if err != nil {
		return "", err
	}
	p.containers[name] = resp.ContainerId
	p.logOf[name] = p.path("logs", pod, name+".log")
	return "created", nil
}

func (p *play) startContainer(args []string) (string, error) {
	_, err := p.runtime.StartContainer(p.ctx(), &runtimeapi.StartContainerRequest{ContainerId: p.containers[args[0]]})
	return done("started", err)
}

func (p *play) stopContainer(args []string) (string, error) {
	var seconds int64
	if len(args) > 1 {
		if _, err := fmt.Sscan(args[1], &seconds); err != nil {
			return "", err
		}
	}
	_, err := p.runtime.StopContainer(p.ctx(), &runtimeapi.StopContainerRequest{ContainerId: p.containers[args[0]], Timeout: seconds})
	return done("stopped", err)
}

func (p *play) removeContainer(args []string) (string, error) {
	_, err := p.runtime.RemoveContainer(p.ctx(), &runtimeapi.RemoveContainerRequest{ContainerId: p.containers[args[0]]})
	return done("removed", err)
}

func (p *play) exec(args []string) (string, error) {
	before, words := splitDash(args)
	resp, err := p.runtime.ExecSync(p.ctx(), &runtimeapi.ExecSyncRequest{ContainerId: p.containers[before[0]], Cmd: command(words)})
	if err != nil {
		return "", err
	}
	out := string(resp.Stdout) + string(resp.Stderr)
	if resp.ExitCode != 0 {
		out += fmt.Sprintf("exit %d\n", resp.ExitCode)
	}
	return p.anonymous(out), nil
}

// until polls until yes returns true. CRI has no event for it here.
func (n *node) until(what string, yes func() bool) error {
	for limit := time.Now().Add(readyTimeout); time.Now().Before(limit); time.Sleep(10 * time.Millisecond) {
		if yes() {
			return nil
		}
	}
	return fmt.Errorf("timed out waiting for %s", what)
}

func (n *node) containerStatus(id string) (*runtimeapi.ContainerStatus, error) {
	resp, err := n.runtime.ContainerStatus(n.ctx(), &runtimeapi.ContainerStatusRequest{ContainerId: id})
	return resp.GetStatus(), err
}

func (p *play) wait(args []string) (string, error) {
	var last *runtimeapi.ContainerStatus
	err := p.until("the end of "+args[0], func() bool {
		last, _ = p.containerStatus(p.containers[args[0]])
		return last.GetState() == runtimeapi.ContainerState_CONTAINER_EXITED
	})
	if err != nil {
		return "", err
	}
	return p.container(args)
}

func (p *play) waitLog(args []string) (string, error) {
	want := strings.Join(args[1:], " ")
	err := p.until(want+" in the log", func() bool { return strings.Contains(readLog(p.logOf[args[0]]), want) })
	return done("it is there", err)
}

// container prints the state of a container.
func (p *play) container(args []string) (string, error) {
	s, err := p.containerStatus(p.containers[args[0]])
	if err != nil {
		return "", err
	}
	text := strings.ToLower(strings.TrimPrefix(s.State.String(), "CONTAINER_"))
	if s.State == runtimeapi.ContainerState_CONTAINER_EXITED {
		text += fmt.Sprintf(", exit code %d, %s", s.ExitCode, s.Reason)
	}
	return text, nil
}

// pod prints the state of a pod, and whether it still has the addresses of the first look.
func (p *play) pod(args []string) (string, error) {
	resp, err := p.runtime.PodSandboxStatus(p.ctx(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: p.pods[args[0]]})
	if err != nil {
		return "", err
	}
	s := resp.Status
	ips := []string{s.GetNetwork().GetIp()}
	for _, ip := range s.GetNetwork().GetAdditionalIps() {
		ips = append(ips, ip.Ip)
	}
	text := strings.ToLower(strings.TrimPrefix(s.State.String(), "SANDBOX_"))
	before, seen := p.addresses[args[0]]
	switch {
	case ips[0] == "":
		text += ", no address"
	case !seen:
		p.addresses[args[0]] = ips
		text += fmt.Sprintf(", %d addresses", len(ips))
	case slices.Equal(ips, before):
		text += ", the same addresses"
	default:
		text += ", other addresses"
	}
	return text, nil
}

// logs prints a container's log without the times.
func (p *play) logs(args []string) (string, error) {
	if text := readLog(p.logOf[args[0]]); text != "" {
		return text, nil
	}
	return "(empty)", nil
}

func readLog(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	var lines []string
	partial := map[string]string{} // by stream: the place where a line is cut depends on the machine's speed
	for line := range strings.Lines(string(data)) {
		_, rest, _ := strings.Cut(line, " ")
		if stream, text, cut := strings.Cut(rest, " P "); cut && !strings.Contains(stream, " ") {
			partial[stream] += strings.TrimSuffix(text, "\n")
			continue
		}
		if stream, text, whole := strings.Cut(rest, " F "); whole {
			rest = stream + " F " + partial[stream] + text
			delete(partial, stream)
		}
		lines = append(lines, rest)
	}
	for stream, text := range partial {
		lines = append(lines, stream+" P "+text+"\n")
	}
	// The order between the two streams is not defined.
	stream := func(line string) string { return line[:min(len(line), len("stdout"))] }
	slices.SortStableFunc(lines, func(a, b string) int { return strings.Compare(stream(b), stream(a)) })
	return strings.Join(lines, "")
}

// list prints the names of all pods and containers.
func (p *play) list(_ []string) (string, error) {
	pods, err := p.runtime.ListPodSandbox(p.ctx(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return "", err
	}
	containers, err := p.runtime.ListContainers(p.ctx(), &runtimeapi.ListContainersRequest{})
	if err != nil {
		return "", err
	}
	var lines []string
	for _, pod := range pods.Items {
		lines = append(lines, "pod "+pod.Metadata.Name+" "+strings.ToLower(strings.TrimPrefix(pod.State.String(), "SANDBOX_")))
	}
	for _, c := range containers.Containers {
		lines = append(lines, "container "+c.Metadata.Name+" "+strings.ToLower(strings.TrimPrefix(c.State.String(), "CONTAINER_")))
	}
	slices.Sort(lines)
	if len(lines) == 0 {
		lines = []string{"nothing"}
	}
	return strings.Join(lines, "\n"), nil
}

// host prints what is on the host that did not exist when the scenario began, without pinder, which
// runs as long as the daemon.
//
// After a crash the daemon serves before its clean-up has ended, so this waits for a clean host.
func (p *play) host(_ []string) (string, error) {
	if p.until("a clean host", func() bool { return len(p.left()) == 0 }) == nil {
		return "as before", nil
	}
	return p.anonymous(strings.Join(p.left(), "\n")), nil
}

// left is what a daemon without pods must not have while it runs.
func (p *play) left() []string {
	return slices.DeleteFunc(p.leftovers(), func(line string) bool {
		return strings.Contains(line, binaries.pinfoldd+" ") || strings.Contains(line, ": pinder ") ||
			line == "mount "+filepath.Join(p.dir, "state/mnt") || strings.HasPrefix(line, "file "+filepath.Join(p.dir, "state/mnt")) ||
			line == "link "+p.bridge() || line == "mount "+filepath.Join(p.dir, "netns") || line == "file "+filepath.Join(p.dir, "state/netns.mount")
	})
}

// held are the allocated addresses.
func (n *node) held() []string {
	files, _ := filepath.Glob(n.path("ipam/pinfold-test/*"))
	return slices.DeleteFunc(files, func(f string) bool {
		return strings.HasPrefix(filepath.Base(f), "last_reserved_ip") || filepath.Base(f) == "lock"
	})
}

func (p *play) addressesHeld(_ []string) (string, error) {
	if held := p.held(); len(held) > 0 {
		return fmt.Sprintf("%d held", len(held)), nil
	}
	return "none held", nil
}

func (p *play) waitAddresses(_ []string) (string, error) {
	err := p.until("all addresses to be given back", func() bool { return len(p.held()) == 0 })
	return done("none held", err)
}

// crash restarts the daemon with a fail point that works once.
func (p *play) crash(args []string) (string, error) {
	p.signal(syscall.SIGTERM)
	dir := p.path("orders")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, args[0]), []byte("kill"), 0o644); err != nil {
		return "", err
	}
	p.env = append(p.env, "PINFOLD_FAILPOINTS="+dir)
	p.launch()
	return "it will", nil
}

// ping sends one packet to a pod's first address from the node.
func (p *play) ping(args []string) (string, error) {
	ips := p.addresses[args[0]]
	if len(ips) == 0 {
		return "", errors.New("look at the pod first")
	}
	return done("answered", runQuiet(p.ctx(), "ping", "-c1", "-W5", ips[0]))
}

func codeOf(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Code().String()
	}
	return "of the test"
}

func messageOf(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	return err.Error()
}

func runQuiet(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}
