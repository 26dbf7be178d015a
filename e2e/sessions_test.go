package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// openIn counts the descriptors of the daemon and of pinder's two processes, without those of
// pollers and libraries.
func (n *node) openIn() map[string]int {
	count := map[string]int{}
	for _, line := range n.processes() {
		var pid int
		if _, err := fmt.Sscanf(line, "process %d:", &pid); err != nil {
			continue
		}
		var name string
		switch {
		case strings.Contains(line, "pinfoldd "):
			name = "daemon"
		case strings.Contains(line, "pinder supervise"):
			name = "supervisor"
		case strings.Contains(line, "pinder --state"):
			name = "reaper"
		default:
			continue
		}
		links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, link := range links {
			to, _ := os.Readlink(link)
			if !strings.HasPrefix(to, "anon_inode:[event") {
				count[name]++
			}
		}
	}
	return count
}

// returnsTo waits until no more descriptors are open than before, and the container runs the same
// processes.
func (n *node) returnsTo(what string, before map[string]int, container string, processes int) {
	n.t.Helper()
	var now map[string]int
	var running map[int]string
	err := n.until(what+" to leave nothing", func() bool {
		now, running = n.openIn(), processesOf(container)
		for name, count := range before {
			if now[name] > count {
				return false
			}
		}
		return len(running) <= processes
	})
	if err != nil {
		n.t.Errorf("%v: descriptors %v, before %v; processes %v", err, now, before, running)
	}
}

// sessionsThatEnd are the kinds of sessions and the ways in which clients end them.
var sessionsThatEnd = map[string]func(n *node, pod, container string){
	"ExecSync that ends": func(n *node, _, c string) {
		_, err := n.runtime.ExecSync(n.ctx(), &runtimeapi.ExecSyncRequest{ContainerId: c, Cmd: []string{"true"}})
		n.check(err)
	},
	"ExecSync that times out": func(n *node, _, c string) {
		_, err := n.runtime.ExecSync(n.ctx(), &runtimeapi.ExecSyncRequest{ContainerId: c, Cmd: []string{"sh", "-c", "sleep 1001 & sleep 1002; true"}, Timeout: 1})
		if status.Code(err) != codes.DeadlineExceeded {
			n.t.Errorf("a command past its time: %v", err)
		}
	},
	"ExecSync whose client gives up": func(n *node, _, c string) {
		ctx, cancel := context.WithTimeout(n.ctx(), 30*time.Millisecond)
		defer cancel()
		_, _ = n.runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: c, Cmd: []string{"sh", "-c", "sleep 1001 & sleep 1002; true"}})
	},
	"Exec with a terminal whose client hangs up": func(n *node, _, c string) {
		s := dialSPDY(n.t, n.execURL(c, terminal, "sh"), terminal)
		sayUntil(n.t, s.in, "echo ready\n", s.out, "ready")
		s.hangUp()
	},
	"Attach whose client hangs up": func(n *node, _, c string) {
		dialWebSocket(n.t, n.attachURL(c, streamsOf{stdout: true, stderr: true}), streamsOf{stdout: true, stderr: true}).hangUp()
	},
	"PortForward whose client hangs up": func(n *node, pod, _ string) {
		resp, err := n.runtime.PortForward(n.ctx(), &runtimeapi.PortForwardRequest{PodSandboxId: pod})
		n.check(err)
		conn := connectSPDY(n.t, resp.Url, "portforward.k8s.io")
		forward(n.t, conn, 9, 1)
		conn.Close()
	},
	"events that are not read": func(n *node, _, _ string) {
		ctx, cancel := context.WithCancel(n.ctx())
		defer cancel()
		_, err := n.runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
		n.check(err)
	},
	"lists that are not read": func(n *node, _, _ string) {
		ctx, cancel := context.WithCancel(n.ctx())
		defer cancel()
		_, err := n.runtime.StreamContainers(ctx, &runtimeapi.StreamContainersRequest{})
		n.check(err)
		_, err = n.runtime.StreamPodSandboxes(ctx, &runtimeapi.StreamPodSandboxesRequest{})
		n.check(err)
	},
}

func TestEndsOfSessionsLeaveNothing(t *testing.T) {
	n := started(t)
	pod, c := n.runIn("p", containerConfig("main", "sleep", "1000000"))
	for name, session := range sessionsThatEnd {
		session(n, pod, c) // the first session leaves descriptors that stay
		n.returnsTo("the first "+name, map[string]int{}, c, 1)
		before := n.openIn()
		var all sync.WaitGroup
		for range 8 {
			if strings.HasPrefix(name, "ExecSync") {
				all.Go(func() { session(n, pod, c) })
			} else {
				session(n, pod, c)
			}
		}
		all.Wait()
		n.returnsTo(name, before, c, 1)
	}
}

func TestManyCommandsThatTimeOutTogetherAllEnd(t *testing.T) {
	n := started(t)
	_, c := n.runIn("p", containerConfig("main", "sleep", "1000000"))
	before := n.openIn()
	var all sync.WaitGroup
	for range 200 { // as the probes of all pods on a node without free CPU
		all.Go(func() { sessionsThatEnd["ExecSync that times out"](n, "", c) })
	}
	all.Wait()
	n.returnsTo("many commands that time out", before, c, 1)
}

func TestAttachersThatComeAndGoLeaveNothing(t *testing.T) {
	n := started(t)
	pod, c := n.runIn("p", containerConfig("main", "sleep", "1000000"))
	before := n.openIn()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 25 {
				sessionsThatEnd["Attach whose client hangs up"](n, pod, c)
			}
		})
	}
	all.Wait()
	n.returnsTo("many attachers", before, c, 1)
}

func TestADaemonThatIsKilledLeavesNothingOfItsSessions(t *testing.T) {
	n := started(t)
	_, c := n.runIn("p", containerConfig("main", "sleep", "1000000"))
	before := n.openIn()
	for round := range 3 {
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				_, _ = n.runtime.ExecSync(n.ctx(), &runtimeapi.ExecSyncRequest{ContainerId: c, Cmd: []string{"sh", "-c", "sleep 1001 & sleep 1002; true"}})
			})
		}
		time.Sleep(time.Duration(100+200*round) * time.Millisecond) // any moment will do
		n.kill()
		all.Wait()
		n.launch()
	}
	delete(before, "daemon") // a new daemon
	n.returnsTo("a killed daemon", before, c, 1)
}

// limitedTo is a program that runs the daemon with these limits of open files.
func (n *node) limitedTo(soft, hard int) {
	n.t.Helper()
	n.program = n.path("limited")
	text := fmt.Sprintf("#!/bin/sh\nulimit -Sn %d\nulimit -Hn %d\nexec %s \"$@\"\n", soft, hard, binaries.pinfoldd)
	n.check(os.WriteFile(n.program, []byte(text), 0o755))
}

func TestWithFewDescriptorsCreationsAreRefusedAndWhatRunsGoesOn(t *testing.T) {
	n := newNode(t)
	n.limitedTo(256, 256)
	n.launch()
	n.loadImage()
	pod := n.runPodOf(n.podConfig("p"))
	var running []string
	for i := range 40 {
		made, err := n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{
			PodSandboxId: pod, Config: containerConfig(fmt.Sprint("c", i), "sleep", "1000000"),
		})
		if err != nil {
			if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "descriptors") {
				t.Errorf("with too few descriptors: %v", err)
			}
			break
		}
		_, err = n.runtime.StartContainer(n.ctx(), &runtimeapi.StartContainerRequest{ContainerId: made.ContainerId})
		n.check(err)
		running = append(running, made.ContainerId)
	}
	if len(running) < 5 || len(running) == 40 {
		t.Fatalf("%d containers were made with 256 descriptors", len(running))
	}
	check := func(when string) {
		t.Helper()
		for _, c := range running {
			if s, err := n.containerStatus(c); err != nil || s.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
				t.Errorf("%s: %v, %v", when, s.GetState(), err)
			}
		}
	}
	check("when no more can be made")
	n.kill()
	n.launch()
	check("after a restart of the daemon")
	killSupervisor(t, n)
	_, err := n.runtime.StopContainer(n.ctx(), &runtimeapi.StopContainerRequest{ContainerId: running[0]})
	n.check(err)
	running = running[1:]
	check("after the supervisor's end")
}

func TestContainersLimitsOfOpenFilesAreNotTheDaemons(t *testing.T) {
	n := newNode(t)
	n.limitedTo(500, 4000) // the daemon raises its own to the hard limit
	n.launch()
	n.loadImage()
	eachKindOfPod(t, n, func(pod string, _ bool) {
		c := n.runContainerOf(pod, sleeper("main"))
		n.says(c, "ulimit -Sn; ulimit -Hn", "4000\n4000") // as every container, as far as the node allows
	})
}
