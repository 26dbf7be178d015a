package e2e

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// stubborn is a container that counts its stop signals in its log and does not end.
func stubborn() *runtimeapi.ContainerConfig {
	c := containerConfig("stubborn", "sh", "-c", `trap 'echo signalled' TERM; echo ready; while :; do sleep 0.1; done`)
	c.LogPath = "stubborn.log"
	return c
}

func (n *node) stopIn(container string, seconds int64) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := n.runtime.StopContainer(n.ctx(), &runtimeapi.StopContainerRequest{ContainerId: container, Timeout: seconds})
		done <- err
	}()
	return done
}

func (n *node) signalsIn(log string) int {
	text, _ := os.ReadFile(log)
	return strings.Count(string(text), "signalled")
}

func TestAStopSignalsOnceAndTheShortestGraceCounts(t *testing.T) {
	t.Parallel()
	n := started(t)
	eachKindOfPod(t, n, func(pod string, _ bool) {
		c := n.runContainerOf(pod, stubborn())
		status, err := n.containerStatus(c)
		n.check(err)
		log := status.LogPath
		n.check(n.until("the container is ready", func() bool { text, _ := os.ReadFile(log); return strings.Contains(string(text), "ready") }))
		long := n.stopIn(c, math.MaxInt64)
		n.check(n.until("it is signalled", func() bool { return n.signalsIn(log) == 1 }))
		// The daemon is killed meanwhile; its client repeats the request.
		n.kill()
		<-long
		n.launch()
		long = n.stopIn(c, 9223372037)
		longer := n.stopIn(c, 3600)
		select {
		case err := <-long:
			t.Fatalf("a grace period past 292 years ended at once: %v", err)
		case err := <-longer:
			t.Fatalf("a grace period of an hour ended at once: %v", err)
		case <-time.After(2 * time.Second): // nothing is to happen
		}
		began := time.Now()
		n.check(<-n.stopIn(c, 1))
		if took := time.Since(began); took < 900*time.Millisecond || took > slow(20*time.Second) {
			t.Errorf("the shorter grace period of 1 s took %v", took)
		}
		n.check(<-long)
		n.check(<-longer)
		if got := n.signalsIn(log); got != 1 {
			t.Errorf("the stop signal was sent %d times", got)
		}
	})
}

func TestAStopWithoutGraceKillsAtOnceBesideOneThatWaits(t *testing.T) {
	t.Parallel()
	n := started(t)
	pod := n.runPodOf(n.podConfig("p"))
	c := n.runContainerOf(pod, stubborn())
	waiting := n.stopIn(c, 3600)
	n.check(<-n.stopIn(c, 0))
	n.check(<-waiting)
	if s, _ := n.containerStatus(c); s.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED || s.GetExitCode() != 137 {
		t.Errorf("it is %v with code %d", s.GetState(), s.GetExitCode())
	}
}

func TestAStopEndsAContainerThatLeftItsGroupsOrIsFrozen(t *testing.T) {
	t.Parallel()
	n := started(t)
	eachKindOfPod(t, n, func(pod string, _ bool) {
		for name, hide := range map[string]func(pid string){
			"moved": func(pid string) {
				for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
					files, _ := filepath.Glob(mount + "/cgroup.procs")
					for _, file := range files {
						_ = os.WriteFile(file, []byte(pid), 0)
					}
				}
			},
			"frozen": func(pid string) { n.check(freezeGroupOf(pid)) },
		} {
			config := stubborn()
			config.Metadata.Name = name
			c := n.runContainerOf(pod, config)
			hide(strconv.Itoa(n.pidOf(c)))
			n.check(<-n.stopIn(c, 0))
			if s, _ := n.containerStatus(c); s.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED {
				t.Errorf("%s: it is %v", name, s.GetState())
			}
			_, err := n.runtime.RemoveContainer(n.ctx(), &runtimeapi.RemoveContainerRequest{ContainerId: c})
			n.check(err)
		}
	})
}

// freezeGroupOf freezes a process's group with the freezer that there is.
func freezeGroupOf(pid string) error {
	groups, err := os.ReadFile("/proc/" + pid + "/cgroup")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(groups)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if parts[1] == "freezer" {
			return os.WriteFile(filepath.Join("/sys/fs/cgroup/freezer", parts[2], "freezer.state"), []byte("FROZEN"), 0)
		}
	}
	_, path, _ := strings.Cut(strings.TrimSpace(string(groups)), "::")
	return os.WriteFile(filepath.Join("/sys/fs/cgroup", path, "cgroup.freeze"), []byte("1"), 0)
}
