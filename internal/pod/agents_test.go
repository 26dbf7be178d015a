package pod

import (
	"regexp"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/handler"
	"github.com/pinfold-run/pinfold/internal/ocispec"
)

// agent is what an agent on nodes takes for the cgroup of a container. The facts are read in its source; docs/agents.md
// names repository, file and commit of each.
type agent struct {
	name string
	// find returns the container's ID for a path of a cgroup, "" if the agent sees no container.
	find func(group string) string
	// onlyKnown: a scope of any other prefix than those of the peers is no container, or one of another runtime.
	onlyKnown bool
}

// pattern is an agent that looks for a pattern with the ID as its group.
func pattern(text string) func(string) string {
	expression := regexp.MustCompile(text)
	return func(group string) string {
		found := expression.FindStringSubmatch(group)
		if found == nil {
			return ""
		}
		return found[1]
	}
}

// base is an agent that looks at the last part of the path alone.
func base(find func(string) string) func(string) string {
	return func(group string) string { return find(group[strings.LastIndex(group, "/")+1:]) }
}

// affixes is an agent that takes 64 digits between one of the pairs of a prefix and a suffix, which are at the end of the path.
func affixes(pairs ...[2]string) func(string) string {
	return func(group string) string {
		for _, p := range pairs {
			at := strings.LastIndex(group, p[0])
			if rest, ok := strings.CutSuffix(group, p[1]); at >= 0 && ok && len(rest)-at-len(p[0]) == 64 {
				return rest[at+len(p[0]):]
			}
		}
		return ""
	}
}

// lastWord is an agent that takes what is behind the last dash or colon of the last part, without the suffix.
func lastWord(group string) string {
	word := strings.TrimSuffix(group[strings.LastIndexAny(group, "/-:")+1:], ".scope")
	if len(word) < 64 {
		return ""
	}
	return word
}

var agents = []agent{
	{name: "Falco, Sysdig", onlyKnown: true, find: affixes(
		[2]string{"/", ""}, [2]string{"/crio-", ""}, [2]string{"/cri-containerd-", ".scope"}, [2]string{"/crio-", ".scope"},
		[2]string{":cri-containerd:", ""}, [2]string{"/docker-", ".scope"},
	)},
	{name: "Cilium", onlyKnown: true, find: base(pattern(`^(?:cri-containerd-|crio-|docker-)?([0-9a-f]{64})(?:\.scope)?$`))},
	{name: "Tracee", onlyKnown: true, find: base(pattern(`^(?:docker-|crio-|cri-containerd-|libpod-)?([A-Fa-f0-9]{64})(?:\.scope)?$`))},
	{name: "coroot", onlyKnown: true, find: pattern(`kubepods.*/(?:crio-|cri-containerd[-:])?([a-z0-9]{64})`)},
	{name: "Kepler", onlyKnown: true, find: pattern(`(?:[:/]cri-containerd[-:]|/crio-|/docker[-/]|/containerd[-/]|/kubepods/[^/]+/pod[0-9a-f-]+/)([0-9a-f]{64})`)},
	{name: "Datadog", find: base(pattern(`([0-9a-f]{64})`))},
	{name: "cAdvisor", find: base(pattern(`([a-z0-9]{64})`))},
	{name: "Tetragon", find: lastWord},
	{name: "Pixie", find: pattern(`\b([0-9a-f]{64})\b`)},
	{name: "OpenTelemetry's profiler, Parca", find: func(group string) string {
		return pattern(`0:.*?:.*?([0-9a-fA-F]{64})(?:\.scope)?(?:/[a-z]+)?$`)("0::" + group)
	}},
	{name: "OpenTelemetry Go", find: pattern(`^.*/(?:.*[-:])?([0-9a-f]+)(?:\.|\s*$)`)},
}

// groups are the cgroups of a container of a pod of Kubernetes with both drivers, as Pinfold names them.
func groups(t *testing.T, id string, m Means) []string {
	t.Helper()
	var paths []string
	for _, systemd := range []bool{true, false} {
		parent := "/kubepods/burstable/pod5c6b9a3f-1d2e-4f50-8a7b-9c8d7e6f5a4b"
		if systemd {
			parent = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod5c6b9a3f_1d2e_4f50_8a7b_9c8d7e6f5a4b.slice"
		}
		m.SystemdCgroup = systemd
		rec := &SandboxRecord{ID: NewID(), Means: m, Config: ocispec.ParsePod(&runtimeapi.PodSandboxConfig{
			Linux: &runtimeapi.LinuxPodSandboxConfig{CgroupParent: parent},
		})}
		group := places(nil).Cgroup(rec)
		name := group.Container(id)
		if slice, scope, ok := strings.Cut(name, ".slice:"); ok {
			name = group.Path() + "/" + strings.ReplaceAll(scope, ":", "-") + ".scope" // as systemd is asked to call it
			if !strings.HasSuffix(group.Path(), slice+".slice") {
				t.Errorf("slice %s is not that of %s", slice, group.Path())
			}
		}
		paths = append(paths, name)
	}
	return paths
}

func TestAgentsPatternsMatchOurNames(t *testing.T) {
	id := NewID()
	now := Means{Runtime: "/r", RuntimeRoot: "/rr", Scope: places(nil).MeansNow("p", handler.Handler{}).Scope}
	for _, a := range agents {
		for _, group := range groups(t, id, now) {
			if got := a.find(group); got != id {
				t.Errorf("%s takes %s for %q", a.name, group, got)
			}
		}
	}
}

// This is why the name is not one of our own (decision 19).
func TestAgentsWithAListOfNamesKnowNoOther(t *testing.T) {
	id := NewID()
	scope := groups(t, id, Means{Runtime: "/r", RuntimeRoot: "/rr"})[0]
	if !strings.HasSuffix(scope, "/pinfold-"+id+".scope") {
		t.Fatal(scope)
	}
	for _, a := range agents {
		if got := a.find(scope); (got == id) == a.onlyKnown {
			t.Errorf("%s takes %s for %q", a.name, scope, got)
		}
	}
}

// A probe runs in a group below its container. An agent that looks at the end of the path alone sees no container.
func TestAgentsTakeAnExecForItsContainerOrForNone(t *testing.T) {
	id := NewID()
	group := groups(t, id, Means{Runtime: "/r", RuntimeRoot: "/rr", Scope: "cri-containerd"})[0] + "/exec-" + NewExecID()
	for _, a := range agents {
		if got := a.find(group); got != id && got != "" {
			if a.name == "OpenTelemetry Go" {
				continue // it runs in the container, where the path begins at the container's group
			}
			t.Errorf("%s takes %s for %q", a.name, group, got)
		}
	}
}
