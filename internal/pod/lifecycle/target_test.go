package lifecycle

import (
	"errors"
	"os"
	"testing"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/pod"
)

func TestAPIDThatNoLongerMeansItsContainerIsNoTarget(t *testing.T) {
	process, err := proc.Find(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	target := pod.ContainerRecord{ID: "t", Sandbox: "p", State: pod.Running, Process: process}
	options := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_TARGET, TargetId: "t"}
	asking := &pod.ContainerRecord{ID: "a", Sandbox: "p", Config: pod.ContainerConfig{ContainerConfig: &runtimeapi.ContainerConfig{
		Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: options}},
	}}}
	for about, c := range map[string]struct {
		change func(*pod.ContainerRecord)
		class  error
	}{
		"as it is":           {func(*pod.ContainerRecord) {}, nil},
		"its pid was reused": {func(r *pod.ContainerRecord) { r.Process.Start-- }, errdefs.ErrFailedPrecondition},
		"it has ended":       {func(r *pod.ContainerRecord) { r.State = pod.Exited }, errdefs.ErrFailedPrecondition},
		"it is elsewhere":    {func(r *pod.ContainerRecord) { r.Sandbox = "q" }, errdefs.ErrFailedPrecondition},
		"it is unknown":      {func(r *pod.ContainerRecord) { r.ID = "other" }, errdefs.ErrNotFound},
	} {
		rec := target
		c.change(&rec)
		s := pidTarget{pod.NewBook()}
		s.book.AddContainer(pod.NewContainer(&rec))
		got, err := s.find(asking)
		if !errors.Is(err, c.class) || (err == nil) != (got != nil) {
			t.Errorf("%s: %v %v", about, got, err)
		}
	}
	options.Pid = runtimeapi.NamespaceMode_POD
	if got, err := (pidTarget{pod.NewBook()}).find(asking); got != nil || err != nil {
		t.Errorf("in another mode: %v %v", got, err)
	}
}
