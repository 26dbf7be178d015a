package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/testimage"
)

// reopens is a script that opens each of its standard streams by name, as programs do that log to
// /dev/stdout. It prints the streams' owners first.
const reopens = `stat -L -c %u /dev/stdin /dev/stdout /dev/stderr
for f in /dev/stdout /dev/stderr /proc/self/fd/1 /proc/self/fd/2; do echo "to $f" >"$f" || echo "not to $f"; done
ln -sf /dev/stdout /tmp/access.log && echo "to a link" >>/tmp/access.log
: </dev/stdin && echo "from stdin"`

// reopened is what the script prints as a user, in any order.
func reopened(uid int) []string {
	owner := fmt.Sprint(uid)
	return []string{
		owner, owner, owner,
		"to /dev/stdout", "to /dev/stderr", "to /proc/self/fd/1", "to /proc/self/fd/2", "to a link", "from stdin",
	}
}

// user is one way to set a container's user.
type user struct {
	name string
	uid  int
	ask  func(*runtimeapi.LinuxContainerSecurityContext)
}

// streamUsers are of the image made by loadStreams.
var streamUsers = []user{
	{"root", 0, func(s *sc) { s.RunAsUser = &runtimeapi.Int64Value{Value: 0} }},
	{"number", 1000, func(s *sc) { s.RunAsUser = &runtimeapi.Int64Value{Value: 1000} }},
	{"group", 1001, func(s *sc) {
		s.RunAsUser, s.RunAsGroup = &runtimeapi.Int64Value{Value: 1001}, &runtimeapi.Int64Value{Value: 2002}
	}},
	{"name", 1234, func(s *sc) { s.RunAsUsername = "web" }},
	{"image", 65535, func(*sc) {}},
	{"bare", 1000, func(s *sc) {
		s.RunAsUser = &runtimeapi.Int64Value{Value: 1000}
		s.Capabilities = &runtimeapi.Capability{DropCapabilities: []string{"ALL"}}
		s.NoNewPrivs = true
	}},
}

func (n *node) loadStreams() string {
	const image = "docker.io/library/streams:test"
	n.load(testimage.Options{
		Name: image, Config: testimage.Config{User: "65535:7"},
		Files: []testimage.File{{Path: "etc/passwd", Mode: 0o644, Content: "root:x:0:0::/:/bin/sh\nweb:x:1234:4321::/:/bin/sh\n"}},
	})
	return image
}

// TestAProcessMayOpenItsStandardStreamsAgain holds for a container's first process and for commands, as
// any user: the streams belong to the process's user.
func TestAProcessMayOpenItsStandardStreamsAgain(t *testing.T) {
	t.Parallel()
	n := started(t)
	image := n.loadStreams()
	eachKindOfPod(t, n, func(pod string, userns bool) {
		for _, as := range streamUsers {
			for _, tty := range []bool{false, true} {
				name := fmt.Sprintf("%s-%t-%t", as.name, userns, tty)
				config := containerConfig(name, "sh", "-c", reopens+"\necho end; exec sleep 1000")
				config.Image.Image, config.Tty, config.Stdin = image, tty, tty
				as.ask(securityContext(config))
				c := n.runContainerOf(pod, config)
				n.logTexts(c, "end")
				// The lines of the other stream may come earlier or later.
				sameLines(t, name+", first process", strings.Join(n.logTexts(c, "to /proc/self/fd/2"), "\n"), append(reopened(as.uid), "end"))
				sameLines(t, name+", ExecSync", n.inside(c, reopens), reopened(as.uid))
				for _, s := range []streamsOf{pipes, {stdout: true, stderr: true}, terminal} {
					session := dialWebSocket(t, n.execURL(c, s, "sh", "-c", reopens), s)
					r := session.finish(t)
					sameLines(t, fmt.Sprintf("%s, Exec %+v", name, s), r.out+r.errs, reopened(as.uid))
				}
				_, err := n.runtime.RemoveContainer(n.ctx(), &runtimeapi.RemoveContainerRequest{ContainerId: c})
				n.check(err)
			}
		}
	})
}

// sameLines compares lines in any order: the two streams are independent.
func sameLines(t *testing.T, what, got string, want []string) {
	t.Helper()
	count := map[string]int{}
	for line := range strings.SplitSeq(strings.ReplaceAll(strings.TrimSpace(got), "\r", ""), "\n") {
		count[line]++
	}
	for _, line := range want {
		count[line]--
	}
	for line, n := range count {
		if n != 0 {
			t.Errorf("%s: %q is there %+d times too often; all of it: %q", what, line, n, got)
		}
	}
}

// logTexts waits until the container's log has a line, the last of its stream, and returns all that are there.
func (n *node) logTexts(id, last string) []string {
	n.t.Helper()
	s, err := n.containerStatus(id)
	n.check(err)
	var texts []string
	var data []byte
	err = n.until(fmt.Sprintf("%q in the log of %s", last, s.GetMetadata().GetName()), func() bool {
		data, _ = os.ReadFile(s.GetLogPath())
		texts = textsOf(string(data))
		return slices.Contains(texts, last)
	})
	if err != nil {
		n.t.Fatalf("%v:\n%s", err, data)
	}
	return texts
}

// textsOf are the whole lines in a log.
func textsOf(log string) []string {
	var texts []string
	begun := map[string]string{}
	for record := range strings.Lines(log) {
		parts := strings.SplitN(strings.TrimSuffix(record, "\n"), " ", 4)
		if len(parts) != 4 {
			continue
		}
		begun[parts[1]] += parts[3]
		if parts[2] == "F" {
			texts = append(texts, strings.TrimSuffix(begun[parts[1]], "\r"))
			delete(begun, parts[1])
		}
	}
	return texts
}

// inode identifies a file of the node.
type inode struct {
	dev, ino uint64
	mode     fs.FileMode
	uid, gid uint32
}

func inodeOf(t *testing.T, path string) inode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	st, _ := info.Sys().(*syscall.Stat_t)
	return inode{st.Dev, st.Ino, info.Mode(), st.Uid, st.Gid}
}

// nullIsAsBefore fails the test if it changes the node's /dev/null, and restores that.
func nullIsAsBefore(t *testing.T) {
	t.Helper()
	before := inodeOf(t, "/dev/null")
	t.Cleanup(func() {
		if after := inodeOf(t, "/dev/null"); after != before {
			t.Errorf("the node's /dev/null was %+v and is %+v", before, after)
			_ = os.Chown("/dev/null", int(before.uid), int(before.gid))
			_ = os.Chmod("/dev/null", before.mode.Perm())
		}
	})
}

// TestNoDescriptorOfAContainerIsTheNodes checks every descriptor that a container's processes start
// with: none refers to a file of the node, whose owner or mode the OCI runtime or the container
// could change.
func TestNoDescriptorOfAContainerIsTheNodes(t *testing.T) {
	t.Parallel()
	nullIsAsBefore(t)
	n := started(t)
	image := n.loadStreams()
	for _, options := range [][]string{nil, {"userns"}, {"userns", "shared-pid"}} {
		pod := n.runPodOf(n.podConfig("p"+strings.Join(options, ""), options...))
		n.ownDescriptors(pod)
		for _, stdin := range []bool{false, true} {
			for _, tty := range []bool{false, true} {
				config := containerConfig(fmt.Sprintf("c-%t-%t", stdin, tty), "sh", "-c", "chmod 667 /dev/null; exec sleep 1000")
				config.Image.Image, config.Stdin, config.Tty = image, stdin, tty
				s := securityContext(config)
				s.RunAsUser = &runtimeapi.Int64Value{Value: 1000}
				s.Capabilities = &runtimeapi.Capability{DropCapabilities: []string{"ALL"}}
				c := n.runContainerOf(pod, config)
				for i, s := range []streamsOf{pipes, {stdout: true, stderr: true}, terminal} {
					marker := fmt.Sprint(2000 + i)
					dialWebSocket(t, n.execURL(c, s, "sleep", marker), s)
					n.check(n.until("the command", func() bool { return anyHas(processesOf(c), "sleep "+marker) }))
				}
				n.check(n.until("the first process", func() bool { return anyHas(processesOf(c), "sleep 1000") }))
				n.ownDescriptors(c)
			}
		}
	}
}

// ownDescriptors checks all processes of a container, or of a pod's own.
func (n *node) ownDescriptors(id string) {
	n.t.Helper()
	nodes := nodesDevices(n.t, n)
	for pid, cmdline := range processesOf(id) {
		links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, link := range links {
			info, err := os.Stat(link)
			if err != nil {
				continue // closed meanwhile
			}
			st, _ := info.Sys().(*syscall.Stat_t)
			if of, ok := nodes[st.Dev]; ok {
				target, _ := os.Readlink(link)
				n.t.Errorf("%s: descriptor %s is %s of the node's %s", cmdline, filepath.Base(link), target, of)
			}
		}
	}
}

// TestNoStandardStreamOfARuntimesCallIsTheNodes makes a runtime report its own standard streams at
// each call.
func TestNoStandardStreamOfARuntimesCallIsTheNodes(t *testing.T) {
	t.Parallel()
	nullIsAsBefore(t)
	n := newNode(t)
	telling, calls := n.path("telling"), n.path("calls")
	n.write("telling", fmt.Sprintf("#!/bin/sh\nall=$(stat -L -c \"%%d %%F $*\" /proc/$$/fd/0 /proc/$$/fd/1 /proc/$$/fd/2)\necho \"$all\" >>%s\nexec %s \"$@\"\n", calls, binaries.runtime))
	n.check(os.Chmod(telling, 0o755))
	n.flags = []string{"--runtime", "other=" + telling, "--default-runtime", "other", "--exec-through-runtime=true"}
	n.launch()
	n.loadImage()
	for _, options := range [][]string{nil, {"userns", "shared-pid"}} {
		pod := n.runPodOf(n.podConfig("p"+strings.Join(options, ""), options...))
		for _, tty := range []bool{false, true} {
			config := sleeper(fmt.Sprint("c-", tty))
			config.Tty = tty
			c := n.runContainerOf(pod, config)
			n.says(c, "echo $?", "0")
			_, err := n.runtime.UpdateContainerResources(n.ctx(), &runtimeapi.UpdateContainerResourcesRequest{
				ContainerId: c, Linux: &runtimeapi.LinuxContainerResources{CpuShares: 512},
			})
			n.check(err)
			_, err = n.runtime.StopContainer(n.ctx(), &runtimeapi.StopContainerRequest{ContainerId: c})
			n.check(err)
		}
	}
	n.check(n.removeAll())
	n.check(os.RemoveAll(n.path("state/runtime/other"))) // a runtime's own directory stays after its containers
	data, err := os.ReadFile(calls)
	n.check(err)
	for _, call := range []string{"features", " create ", " start ", " exec ", " update ", " delete "} {
		if !strings.Contains(string(data), call) {
			t.Errorf("there was no call%s", call)
		}
	}
	nodes := nodesDevices(t, n)
	for line := range strings.Lines(string(data)) {
		dev, what, _ := strings.Cut(line, " ")
		number, err := strconv.ParseUint(dev, 10, 64)
		n.check(err)
		if of, ok := nodes[number]; ok {
			t.Errorf("a stream is of the node's %s: %s", of, what)
		}
	}
}

// nodesDevices are the file systems of the node by their device numbers.
func nodesDevices(t *testing.T, n *node) map[uint64]string {
	t.Helper()
	nodes := map[uint64]string{}
	for _, path := range []string{"/", "/dev", "/dev/pts", "/proc", "/sys", "/run", "/tmp", n.dir} {
		nodes[inodeOf(t, path).dev] = path
	}
	return nodes
}

// TestStandardInputThatIsNotWantedIsAtItsEnd holds for containers and commands.
func TestStandardInputThatIsNotWantedIsAtItsEnd(t *testing.T) {
	t.Parallel()
	n := started(t)
	eachKindOfPod(t, n, func(pod string, _ bool) {
		c := n.runContainerOf(pod, containerConfig("c", "sh", "-c", "cat; read line; cat /dev/stdin; echo $? end; exec sleep 1000"))
		if got := n.logTexts(c, "0 end"); len(got) != 1 {
			t.Errorf("first process: %q", got)
		}
		n.says(c, "cat; cat /dev/stdin; echo $? end", "0 end")
		output := streamsOf{stdout: true, stderr: true}
		if r := dialWebSocket(t, n.execURL(c, output, "sh", "-c", "cat; echo $? end"), output).finish(t); r.out != "0 end\n" {
			t.Errorf("Exec: %+v", r)
		}
	})
}
