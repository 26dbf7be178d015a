package pod

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/ocispec"
)

func boxNamed(id, name string, state State, created int64) *Sandbox {
	return NewSandbox(&SandboxRecord{
		ID: id, State: state, Created: time.Unix(created, 0),
		Config: ocispec.ParsePod(&runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "n", Uid: "u"}}),
	})
}

func containerNamed(id, sandbox, name string, state State, created int64) *Container {
	return NewContainer(&ContainerRecord{
		ID: id, Sandbox: sandbox, State: state, Times: Times{Created: time.Unix(created, 0)},
		Config: ContainerConfig{&runtimeapi.ContainerConfig{Metadata: &runtimeapi.ContainerMetadata{Name: name}}},
	})
}

func TestAnObjectIsFoundByAnUnambiguousBeginningOfItsID(t *testing.T) {
	b := NewBook()
	for _, id := range []string{"abc1", "abc2", "abc", "d1"} {
		b.AddSandbox(boxNamed(id, id, Ready, 0))
		b.AddContainer(containerNamed("c"+id, id, "x", Running, 0))
	}
	for _, c := range []struct {
		id, want string
		class    func(error) bool
	}{
		{"d1", "d1", nil},
		{"d", "d1", nil},
		{"abc1", "abc1", nil},
		{"abc", "abc", nil}, // whole, although others begin with it
		{"ab", "", errdefs.IsInvalidArgument},
		{"", "", errdefs.IsInvalidArgument},
		{"zz", "", errdefs.IsNotFound},
		{"d12", "", errdefs.IsNotFound},
	} {
		box, err := b.Sandbox(c.id)
		if c.class == nil && (err != nil || box.ID != c.want) || c.class != nil && !c.class(err) {
			t.Errorf("sandbox %q: %v", c.id, err)
		}
		if c.id == "" {
			continue
		}
		container, err := b.Container("c" + c.id)
		if c.class == nil && (err != nil || container.ID != "c"+c.want) || c.class != nil && !c.class(err) {
			t.Errorf("container %q: %v", "c"+c.id, err)
		}
	}
	var missing *MissingError
	if _, err := b.Container("zz"); !errors.As(err, &missing) || missing.Kind != "container" || missing.ID != "zz" {
		t.Errorf("what is missing is not named: %v", err)
	}
}

func TestListsBeginWithTheNewest(t *testing.T) {
	b := NewBook()
	b.AddSandbox(boxNamed("old", "a", Ready, 1))
	b.AddSandbox(boxNamed("new", "b", Ready, 3))
	b.AddSandbox(boxNamed("middle", "c", Stopped, 2))
	for i, id := range []string{"c1", "c2", "c3"} {
		b.AddContainer(containerNamed(id, map[bool]string{true: "old", false: "new"}[i == 1], "x", Exited, int64(i)))
	}
	var boxes, all, of []string
	for _, s := range b.Sandboxes() {
		boxes = append(boxes, s.ID)
	}
	for _, c := range b.Containers() {
		all = append(all, c.ID)
	}
	for _, c := range b.ContainersOf("new") {
		of = append(of, c.ID)
	}
	if !slices.Equal(boxes, []string{"new", "middle", "old"}) || !slices.Equal(all, []string{"c3", "c2", "c1"}) || !slices.Equal(of, []string{"c3", "c1"}) {
		t.Errorf("sandboxes %v, containers %v, of one %v", boxes, all, of)
	}
	b.RemoveSandbox("middle")
	b.RemoveContainer("c3")
	if len(b.Sandboxes()) != 2 || len(b.Containers()) != 2 {
		t.Errorf("after a removal: %d sandboxes, %d containers", len(b.Sandboxes()), len(b.Containers()))
	}
}

// A repeated request has to get what the first one made, and nothing that has ended.
func TestARepeatedRequestFindsOnlyWhatIsAlive(t *testing.T) {
	for state, want := range map[State]bool{Creating: false, Ready: true, Stopped: false, Removing: false} {
		b := NewBook()
		box := boxNamed("s", "web", state, 0)
		b.AddSandbox(box)
		if got := b.Ready(box.Record().Identity()); (got == box) != want {
			t.Errorf("a sandbox that is %s: found %t", state, got == box)
		}
		if got := b.Ready("n/other/u/0"); got != nil {
			t.Errorf("another identity finds %s", got.ID)
		}
	}
	for state, want := range map[State]bool{Creating: false, Created: true, Running: true, Exited: false, Removing: false} {
		b := NewBook()
		c := containerNamed("c", "s", "app", state, 0)
		b.AddContainer(c)
		if got := b.Live("s", c.Record().Identity()); (got == c) != want {
			t.Errorf("a container that is %s: found %t", state, got == c)
		}
		if b.Live("other", c.Record().Identity()) != nil || b.Live("s", "app/1") != nil {
			t.Error("one of another pod, or another attempt, is found")
		}
	}
}

func TestAContainerIsAdmittedToAReadyPodOnly(t *testing.T) {
	b := NewBook()
	if err := b.Admit(containerNamed("c", "s", "app", Creating, 0)); !errdefs.IsNotFound(err) {
		t.Errorf("to no pod: %v", err)
	}
	for _, state := range []State{Creating, Stopped, Removing} {
		box := boxNamed("s", "web", state, 0)
		box.Record().Reason = "its PID 1 has ended"
		b.AddSandbox(box)
		err := b.Admit(containerNamed("c", "s", "app", Creating, 0))
		if !errdefs.IsFailedPrecondition(err) || err.Error() != "sandbox s is "+string(state)+", not ready (its PID 1 has ended): failed precondition" {
			t.Errorf("to one that is %s: %v", state, err)
		}
	}
	if len(b.Containers()) != 0 {
		t.Error("a refused container is in the book")
	}
	b.AddSandbox(boxNamed("s", "web", Ready, 0))
	if err := b.Admit(containerNamed("c", "s", "app", Creating, 0)); err != nil || len(b.Containers()) != 1 {
		t.Errorf("to a ready one: %v", err)
	}
}
