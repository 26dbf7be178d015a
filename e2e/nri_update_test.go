package e2e

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func update(id string, change func(*api.ContainerUpdate)) *api.ContainerUpdate {
	u := &api.ContainerUpdate{}
	u.SetContainerId(id)
	change(u)
	return u
}

// has waits until ContainerStatus has the expected resources.
func (n *node) has(id, what string, want int64, get func(*runtimeapi.LinuxContainerResources) int64) {
	n.t.Helper()
	var got int64
	if err := n.until(what, func() bool {
		s, err := n.containerStatus(id)
		n.check(err)
		got = get(s.GetResources().GetLinux())
		return got == want
	}); err != nil {
		n.t.Errorf("%s is %d, want %d", what, got, want)
	}
}

func shares(r *runtimeapi.LinuxContainerResources) int64 { return r.GetCpuShares() }

func memoryLimit(r *runtimeapi.LinuxContainerResources) int64 { return r.GetMemoryLimitInBytes() }

func TestNRIPluginsUpdateContainersUnaskedAskedAndWhenAnotherEnds(t *testing.T) {
	t.Parallel()
	n := started(t)
	pod := n.runPodOf(n.podConfig("p"))
	one, two := n.runContainerOf(pod, sleeper("one")), n.runContainerOf(pod, sleeper("two"))
	p := n.register(&plugin{
		update: func(*api.LinuxResources) []*api.ContainerUpdate {
			return []*api.ContainerUpdate{
				update(one, func(u *api.ContainerUpdate) { u.SetLinuxCPUShares(700) }),
				update(two, func(u *api.ContainerUpdate) { u.SetLinuxCPUShares(300) }),
			}
		},
		stopped: func(*api.Container) []*api.ContainerUpdate {
			return []*api.ContainerUpdate{update(two, func(u *api.ContainerUpdate) { u.SetLinuxCPUShares(1024) })}
		},
	}, "balancer")

	_, err := n.runtime.UpdateContainerResources(n.ctx(), &runtimeapi.UpdateContainerResourcesRequest{
		ContainerId: one, Linux: &runtimeapi.LinuxContainerResources{CpuShares: 500},
	})
	n.check(err)
	n.has(one, "shares of the container that the kubelet updated", 700, shares)
	n.has(two, "shares of the other one", 300, shares)

	failed, err := p.stub.UpdateContainers([]*api.ContainerUpdate{
		update(two, func(u *api.ContainerUpdate) { u.SetLinuxMemoryLimit(128 << 20) }),
		update("feedfeed", func(u *api.ContainerUpdate) { u.SetLinuxCPUShares(2); u.SetIgnoreFailure() }),
	})
	n.check(err)
	if len(failed) != 1 || failed[0].GetContainerId() != "feedfeed" {
		t.Errorf("failed updates %v", failed)
	}
	n.has(two, "memory limit", 128<<20, memoryLimit)

	n.end(one)
	n.has(two, "shares when the other has ended", 1024, shares)
	n.tells(p, one, "update", "updated", "stop", "remove")
	_, err = n.runtime.UpdatePodSandboxResources(n.ctx(), &runtimeapi.UpdatePodSandboxResourcesRequest{
		PodSandboxId: pod, Resources: &runtimeapi.LinuxContainerResources{CpuShares: 100},
	})
	n.check(err)
	n.tells(p, pod, "update", "updated")
}

func TestNRIPluginsAreShownWhatIs(t *testing.T) {
	t.Parallel()
	n := started(t)
	p := n.register(&plugin{create: func(*api.PodSandbox, *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
		a := &api.ContainerAdjustment{}
		a.AddAnnotation("plugin.example/note", "added")
		a.SetLinuxCPUShares(300)
		return a, nil, nil
	}}, "reader")
	pod := n.runPodOf(n.podConfig("p"))
	config := sleeper("c")
	config.Annotations = map[string]string{"client.example/note": "asked"}
	config.Linux = &runtimeapi.LinuxContainerConfig{Resources: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, CpuShares: 200}}
	id := n.runContainerOf(pod, config)
	_, err := n.runtime.UpdateContainerResources(n.ctx(), &runtimeapi.UpdateContainerResourcesRequest{
		ContainerId: id, Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 96 << 20},
	})
	n.check(err)
	n.tells(p, id, "create", "created", "start", "started", "update", "updated")

	updated := p.shownContainer("updated", id)
	if got := updated.GetLinux().GetResources().GetMemory().GetLimit().GetValue(); got != 96<<20 {
		t.Errorf("after the update plugins see a memory limit of %d", got)
	}
	if got := updated.GetLinux().GetResources().GetCpu().GetShares().GetValue(); got != 300 {
		t.Errorf("after an update of something else plugins see %d shares, want those of the plugin", got)
	}
	for key, want := range map[string]string{"client.example/note": "asked", "plugin.example/note": "added"} {
		if got := p.shownContainer("start", id).GetAnnotations()[key]; got != want {
			t.Errorf("annotation %s is %q, want %q", key, got, want)
		}
	}
	if got := p.shownPod("run", pod).GetLinux().GetCgroupParent(); got == "" {
		t.Error("the cgroup parent of a pod that asked for none is not shown")
	}
	own := n.runPodOf(n.podConfig("own", "userns"))
	of := n.runContainerOf(own, sleeper("c"))
	for _, m := range p.shownContainer("started", of).GetMounts() {
		if m.GetDestination() == "/etc/hosts" && m.GetSource() != n.path("root/pods", own, "files/hosts") {
			t.Errorf("in a user namespace plugins see %s as the source of %s", m.GetSource(), m.GetDestination())
		}
	}
	n.endPod(pod)
	for event, want := range map[string]bool{"run": true, "remove": false} {
		shown := p.shownPod(event, pod)
		if has := slices.ContainsFunc(shown.GetLinux().GetNamespaces(), func(ns *api.LinuxNamespace) bool { return ns.GetType() == "network" }); has != want {
			t.Errorf("at %s plugins see a network namespace: %v, want %v", event, has, want)
		}
	}
}

// TestTwoContainersUpdateEachOther runs two updates together. Each makes a plugin update the
// other's container. Neither may block for ever.
func TestTwoContainersUpdateEachOther(t *testing.T) {
	t.Parallel()
	n := started(t)
	pod := n.runPodOf(n.podConfig("p"))
	ids := []string{n.runContainerOf(pod, sleeper("one")), n.runContainerOf(pod, sleeper("two"))}
	n.register(&plugin{update: func(*api.LinuxResources) []*api.ContainerUpdate {
		return []*api.ContainerUpdate{
			update(ids[0], func(u *api.ContainerUpdate) { u.SetLinuxCPUShares(700) }),
			update(ids[1], func(u *api.ContainerUpdate) { u.SetLinuxCPUShares(700) }),
		}
	}}, "tangler")
	done := make(chan error, 2)
	for _, id := range ids {
		go func() {
			_, err := n.runtime.UpdateContainerResources(n.ctx(), &runtimeapi.UpdateContainerResourcesRequest{
				ContainerId: id, Linux: &runtimeapi.LinuxContainerResources{CpuShares: 500},
			})
			done <- err
		}()
	}
	n.check(<-done)
	n.check(<-done)
	for _, id := range ids {
		n.has(id, "shares", 700, shares)
	}
}

// TestALatePluginLearnsOfEventsDuringItsSynchronize updates one container and stops another during
// a plugin's Synchronize. The plugin gets both events afterwards.
func TestALatePluginLearnsOfEventsDuringItsSynchronize(t *testing.T) {
	t.Parallel()
	n := started(t)
	pod := n.runPodOf(n.podConfig("p"))
	updated, stopped := n.runContainerOf(pod, sleeper("updated")), n.runContainerOf(pod, sleeper("stopped"))
	var requests sync.WaitGroup
	p := n.register(&plugin{synchronize: func() {
		began := make(chan struct{}, 2)
		requests.Go(func() {
			began <- struct{}{}
			_, err := n.runtime.UpdateContainerResources(n.ctx(), &runtimeapi.UpdateContainerResourcesRequest{
				ContainerId: updated, Linux: &runtimeapi.LinuxContainerResources{CpuShares: 500},
			})
			if err != nil {
				t.Error(err)
			}
		})
		requests.Go(func() {
			began <- struct{}{}
			if _, err := n.runtime.RemoveContainer(n.ctx(), &runtimeapi.RemoveContainerRequest{ContainerId: stopped}); err != nil {
				t.Error(err)
			}
		})
		<-began
		<-began
		time.Sleep(300 * time.Millisecond) // time for requests that are not blocked to end
	}}, "late")
	requests.Wait()
	n.tells(p, updated, "update", "updated")
	n.tells(p, stopped, "stop", "remove")
}
