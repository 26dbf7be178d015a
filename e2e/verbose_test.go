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
