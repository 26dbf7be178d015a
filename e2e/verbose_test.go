package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// details are the fields of a verbose ContainerStatus that the tests read.
type details struct {
	PID        int
	Namespaces map[string]string
	Timeline   []struct {
		Step  string
		Start time.Time
		Took  time.Duration
	}
	Spec *struct{ Process struct{ Args []string } }
}

func (n *node) details(id string) details {
	n.t.Helper()
	var d details
	n.check(json.Unmarshal([]byte(n.verbose(id)), &d))
	return d
}

func TestTheVerboseStatusHasNamespacesAndTheTimeThatEachStepTook(t *testing.T) {
	t.Parallel()
	n := started(t)
	for _, options := range [][]string{nil, {"userns", "shared-pid"}, {"host-network"}} {
		pod := n.runPodOf(n.podConfig("p"+strings.Join(options, ""), options...))
		c := n.runContainerOf(pod, sleeper("c"))
		d := n.details(c)
		for _, kind := range []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"} {
			// Each path leads to the namespace that a process of the container is in, mnt and pid included.
			own, err := os.Stat(fmt.Sprintf("/proc/%d/ns/%s", d.PID, kind))
			n.check(err)
			shown, err := os.Stat(d.Namespaces[kind])
			if err != nil || !os.SameFile(own, shown) {
				t.Errorf("%v: namespace %s at %q: %v", options, kind, d.Namespaces[kind], err)
			}
		}
		pinned := strings.HasPrefix(d.Namespaces["net"], n.path("netns"))
		if pinned == slices.Contains(options, "host-network") {
			t.Errorf("%v: network namespace at %q", options, d.Namespaces["net"])
		}
		if user := d.Namespaces["user"]; strings.HasPrefix(user, n.path("state/ns")) != slices.Contains(options, "userns") {
			t.Errorf("%v: user namespace at %q", options, user)
		}
		if d.Spec == nil || !slices.Equal(d.Spec.Process.Args, []string{"sleep", "1000000"}) {
			t.Errorf("%v: spec: %v", options, d.Spec)
		}
		var steps []string
		for i, s := range d.Timeline {
			steps = append(steps, s.Step)
			if s.Start.IsZero() || s.Took <= 0 || i > 0 && s.Start.Before(d.Timeline[i-1].Start) {
				t.Errorf("%v: step %v", options, s)
			}
		}
		if got := strings.Join(steps, ", "); got != "record, image, rootfs, volumes, bundle, plugins, binds, runtime create, renew, plugins, runtime start" {
			t.Errorf("%v: timeline: %s", options, got)
		}
		_, err := n.runtime.StopContainer(n.ctx(), &runtimeapi.StopContainerRequest{ContainerId: c})
		n.check(err)
		if d := n.details(c); len(d.Namespaces) > 0 || len(d.Timeline) != len(steps) {
			t.Errorf("%v: of an ended container: %+v", options, d)
		}
	}
}

func TestAPodsNamespacesBelongToItsRootAndInspectSaysSo(t *testing.T) {
	t.Parallel()
	n := started(t)
	for _, options := range [][]string{nil, {"userns"}, {"userns", "shared-pid"}} {
		pod := n.runPodOf(n.podConfig("p"+strings.Join(options, ""), options...))
		out, code := n.pinfold("inspect", pod)
		var shown struct {
			Info struct {
				Namespaces map[string]string
				Owners     map[string]struct {
					UID           uint32
					UserNamespace uint64
				}
			}
		}
		if err := json.Unmarshal([]byte(out), &shown); err != nil || code != 0 {
			t.Fatalf("inspect: exit code %d: %v", code, err)
		}
		if len(shown.Info.Owners) != len(shown.Info.Namespaces) || len(shown.Info.Owners) < 3 {
			t.Errorf("%v: namespaces %v, owners %v", options, shown.Info.Namespaces, shown.Info.Owners)
		}
		node := inodeNumber(t, "/proc/self/ns/user")
		for kind, path := range shown.Info.Namespaces {
			owner := shown.Info.Owners[kind]
			want, inside := uint32(0), node
			if slices.Contains(options, "userns") {
				want = usernsBase
				if kind != "user" {
					inside = inodeNumber(t, shown.Info.Namespaces["user"])
				}
			}
			if owner.UID != want || owner.UserNamespace != inside {
				t.Errorf("%v: %s at %s belongs to user %d and user namespace %d, want %d and %d", options, kind, path, owner.UID, owner.UserNamespace, want, inside)
			}
		}
		n.endPod(pod)
	}
}

func inodeNumber(t *testing.T, path string) uint64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

// agentInfo is what agents and runbooks read in the verbose info of a container and of a pod, with their names; see
// docs/agents.md.
//
// wide: one field for each key that is read.
type agentInfo struct {
	SandboxID      string `json:"sandboxID"`
	PID            int    `json:"pid"`
	Removing       *bool  `json:"removing"`
	Privileged     bool   `json:"privileged"`
	SnapshotKey    string `json:"snapshotKey"`
	Snapshotter    string `json:"snapshotter"`
	RuntimeType    string `json:"runtimeType"`
	RuntimeOptions struct {
		BinaryName    string
		SystemdCgroup bool
	} `json:"runtimeOptions"`
	ProcessStatus string `json:"processStatus"`
	NetClosed     *bool  `json:"netNamespaceClosed"`
	Config        struct {
		LogPath      string `json:"log_path"`
		LogDirectory string `json:"log_directory"`
		Envs         []struct{ Key, Value string }
		Linux        struct {
			SecurityContext struct{ Privileged bool } `json:"security_context"`
		}
	} `json:"config"`
	RuntimeSpec *struct {
		Annotations map[string]string
		Mounts      []struct{ Destination, Source string }
		Linux       struct {
			CgroupsPath string
			Namespaces  []struct{ Type, Path string }
		}
	} `json:"runtimeSpec"`
	CNIResult struct {
		Interfaces map[string]struct {
			IPConfigs []struct{ IP string }
		}
	} `json:"cniResult"`
	SandboxMetadata struct {
		Metadata struct{ ID, NetNSPath, IP, RuntimeHandler string }
	} `json:"sandboxMetadata"`
}

// network is the path of the network namespace, as runbooks find it.
func (a *agentInfo) network() string {
	for _, ns := range a.RuntimeSpec.Linux.Namespaces {
		if ns.Type == "network" {
			return ns.Path
		}
	}
	return ""
}

func TestTheVerboseInfoHasWhatAgentsAndRunbooksRead(t *testing.T) {
	t.Parallel()
	n := started(t)
	for _, options := range [][]string{nil, {"userns", "shared-pid"}} {
		name := "p" + strings.Join(options, "")
		pod := n.runPodOf(n.podConfig(name, options...))
		config := sleeper("c")
		config.Envs = []*runtimeapi.KeyValue{{Key: "A", Value: []byte("of the container")}}
		id := n.runContainerOf(pod, config)
		var c, p agentInfo
		n.check(json.Unmarshal([]byte(n.verbose(id)), &c))
		status, err := n.runtime.PodSandboxStatus(n.ctx(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod, Verbose: true})
		n.check(err)
		n.check(json.Unmarshal([]byte(status.GetInfo()["info"]), &p))
		if c.SandboxID != pod || c.PID == 0 || c.Removing == nil || *c.Removing || c.Privileged || c.SnapshotKey != id || c.Snapshotter != "overlayfs" ||
			c.RuntimeType != "oci" || c.RuntimeOptions.BinaryName != binaries.runtime || c.RuntimeOptions.SystemdCgroup != (cgroupDriver() == "systemd") {
			t.Errorf("%s: container: %+v", name, c)
		}
		if c.Config.LogPath != "c.log" || len(c.Config.Envs) != 1 || c.Config.Envs[0].Value != "of the container" {
			t.Errorf("%s: configuration: %+v", name, c.Config)
		}
		if !strings.HasSuffix(c.RuntimeSpec.Linux.CgroupsPath, id) || len(c.RuntimeSpec.Mounts) < 5 ||
			c.RuntimeSpec.Annotations["io.kubernetes.cri.container-type"] != "container" || c.RuntimeSpec.Annotations["io.kubernetes.cri.sandbox-name"] != name {
			t.Errorf("%s: spec: %+v", name, c.RuntimeSpec)
		}
		own, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", c.PID))
		n.check(err)
		for of, path := range map[string]string{"container": c.network(), "pod": p.network(), "metadata": p.SandboxMetadata.Metadata.NetNSPath} {
			if shown, err := os.Stat(path); err != nil || !os.SameFile(own, shown) {
				t.Errorf("%s: network namespace of the %s: %s: %v", name, of, path, err)
			}
		}
		ip := status.GetStatus().GetNetwork().GetIp()
		if eth := p.CNIResult.Interfaces["eth0"].IPConfigs; len(eth) != 2 || eth[0].IP != ip || p.SandboxMetadata.Metadata.IP != ip {
			t.Errorf("%s: addresses %v and %s, want %s", name, eth, p.SandboxMetadata.Metadata.IP, ip)
		}
		if (p.PID != 0) != slices.Contains(options, "shared-pid") || p.ProcessStatus != "running" || p.NetClosed == nil || *p.NetClosed ||
			p.SandboxMetadata.Metadata.ID != pod || p.SandboxMetadata.Metadata.RuntimeHandler != binaries.handler || p.Config.LogDirectory != n.path("logs", name) ||
			!strings.HasSuffix(p.RuntimeSpec.Linux.CgroupsPath, pod) || p.RuntimeSpec.Annotations["io.kubernetes.cri.container-type"] != "sandbox" {
			t.Errorf("%s: pod: %+v", name, p)
		}
		_, err = n.runtime.StopPodSandbox(n.ctx(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod})
		n.check(err)
		status, err = n.runtime.PodSandboxStatus(n.ctx(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod, Verbose: true})
		n.check(err)
		var stopped agentInfo
		n.check(json.Unmarshal([]byte(status.GetInfo()["info"]), &stopped))
		if stopped.ProcessStatus != "deleted" || !*stopped.NetClosed || stopped.RuntimeSpec == nil || stopped.network() != p.network() {
			t.Errorf("%s: a stopped pod: %+v", name, stopped)
		}
	}
}
