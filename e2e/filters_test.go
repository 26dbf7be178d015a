package e2e

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// namesOf are the sorted names of what a list has.
func namesOf[T any](list []T, name func(T) string) string {
	names := mapped(list, name)
	slices.Sort(names)
	return strings.Join(names, " ")
}

func TestListsHaveWhatTheirFiltersAskFor(t *testing.T) {
	t.Parallel()
	n := started(t)
	podOf := func(name string, labels map[string]string) string {
		config := n.podConfig(name)
		config.Labels = labels
		return n.runPodOf(config)
	}
	one := podOf("one", map[string]string{"app": "a", "tier": "x"})
	two := podOf("two", map[string]string{"app": "a", "tier": "y"})
	stopped := podOf("stopped", map[string]string{"app": "b"})
	_, err := n.runtime.StopPodSandbox(n.ctx(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: stopped})
	n.check(err)
	containerOf := func(pod, name string, labels map[string]string) string {
		config := sleeper(name)
		config.Labels = labels
		resp, err := n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config})
		n.check(err)
		return resp.ContainerId
	}
	created := containerOf(one, "created", map[string]string{"app": "a"})
	running := containerOf(one, "running", map[string]string{"app": "b"})
	exited := containerOf(two, "exited", map[string]string{"app": "a"})
	for _, id := range []string{running, exited} {
		_, err := n.runtime.StartContainer(n.ctx(), &runtimeapi.StartContainerRequest{ContainerId: id})
		n.check(err)
	}
	_, err = n.runtime.StopContainer(n.ctx(), &runtimeapi.StopContainerRequest{ContainerId: exited})
	n.check(err)
	n.podsAre(map[string]*runtimeapi.PodSandboxFilter{
		"one stopped two": nil,
		"two":             {Id: two},
		"one":             {Id: one[:12], State: &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY}},
		"one two":         {LabelSelector: map[string]string{"app": "a"}},
		" one":            {LabelSelector: map[string]string{"app": "a", "tier": "x"}},
		"stopped":         {State: &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_NOTREADY}},
		"":                {Id: two, LabelSelector: map[string]string{"tier": "x"}},
		" ":               {Id: strings.Repeat("0", 32)},
	})
	inState := func(s runtimeapi.ContainerState) *runtimeapi.ContainerStateValue {
		return &runtimeapi.ContainerStateValue{State: s}
	}
	n.containersAre(map[string]*runtimeapi.ContainerFilter{
		"created exited running": nil,
		"created":                {State: inState(runtimeapi.ContainerState_CONTAINER_CREATED)},
		"running":                {State: inState(runtimeapi.ContainerState_CONTAINER_RUNNING)},
		"exited":                 {State: inState(runtimeapi.ContainerState_CONTAINER_EXITED)},
		"created running":        {PodSandboxId: one},
		" created":               {Id: created},
		" running":               {Id: running[:12]},
		"created exited":         {LabelSelector: map[string]string{"app": "a"}},
		"  created":              {PodSandboxId: one, LabelSelector: map[string]string{"app": "a"}},
		"":                       {PodSandboxId: two, State: inState(runtimeapi.ContainerState_CONTAINER_RUNNING)},
	})
}

// podsAre compares the result of each filter with the expected names. Spaces distinguish equal
// filters.
func (n *node) podsAre(filters map[string]*runtimeapi.PodSandboxFilter) {
	n.t.Helper()
	for want, filter := range filters {
		resp, err := n.runtime.ListPodSandbox(n.ctx(), &runtimeapi.ListPodSandboxRequest{Filter: filter})
		n.check(err)
		if got := namesOf(resp.Items, func(p *runtimeapi.PodSandbox) string { return p.Metadata.Name }); got != strings.TrimSpace(want) {
			n.t.Errorf("pods by %v: %q, want %q", filter, got, want)
		}
	}
}

func (n *node) containersAre(filters map[string]*runtimeapi.ContainerFilter) {
	n.t.Helper()
	for want, filter := range filters {
		resp, err := n.runtime.ListContainers(n.ctx(), &runtimeapi.ListContainersRequest{Filter: filter})
		n.check(err)
		if got := namesOf(resp.Containers, func(c *runtimeapi.Container) string { return c.Metadata.Name }); got != strings.TrimSpace(want) {
			n.t.Errorf("containers by %v: %q, want %q", filter, got, want)
		}
	}
}

func TestTheVersionIsWhatAKubeletCanRead(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.launch()
	v, err := n.runtime.Version(n.ctx(), &runtimeapi.VersionRequest{Version: "0.1.0"})
	n.check(err)
	if v.RuntimeName != "pinfold" || v.RuntimeApiVersion != "v1" || v.Version != "0.1.0" || strings.Count(v.RuntimeVersion, ".") < 2 {
		t.Errorf("version: %v", v)
	}
	if out, code := n.pinfold("version"); code != 0 || !strings.Contains(out, v.RuntimeVersion) {
		t.Errorf("pinfold version: exit code %d: %s", code, out)
	}
	_, err = n.runtime.CheckpointPod(n.ctx(), &runtimeapi.CheckpointPodRequest{})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("CheckpointPod: %v", err)
	}
	_, err = n.runtime.RestorePod(n.ctx(), &runtimeapi.RestorePodRequest{})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("RestorePod: %v", err)
	}
}
