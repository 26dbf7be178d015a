package pod

import (
	"errors"
	"os"
	"testing"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestAPIDThatNoLongerMeansItsContainerIsNoTarget(t *testing.T) {
	started, err := startTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	target := ContainerRecord{ID: "t", Sandbox: "p", State: Running, Process: Process{PID: os.Getpid(), StartTime: started}}
	options := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_TARGET, TargetId: "t"}
	asking := &ContainerRecord{ID: "a", Sandbox: "p", Config: ContainerConfig{&runtimeapi.ContainerConfig{
		Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: options}},
	}}}
	for about, c := range map[string]struct {
		change func(*ContainerRecord)
		class  error
	}{
		"as it is":           {func(*ContainerRecord) {}, nil},
		"its pid was reused": {func(r *ContainerRecord) { r.Process.StartTime-- }, errdefs.ErrFailedPrecondition},
		"it has ended":       {func(r *ContainerRecord) { r.State = Exited }, errdefs.ErrFailedPrecondition},
		"it is elsewhere":    {func(r *ContainerRecord) { r.Sandbox = "q" }, errdefs.ErrFailedPrecondition},
		"it is unknown":      {func(r *ContainerRecord) { r.ID = "other" }, errdefs.ErrNotFound},
	} {
		rec := target
		c.change(&rec)
		s := &Containers{book: NewBook()}
		s.book.addContainer(newContainer(&rec))
		got, err := s.pidTarget(asking)
		if !errors.Is(err, c.class) || (err == nil) != (got != nil) {
			t.Errorf("%s: %v %v", about, got, err)
		}
	}
	options.Pid = runtimeapi.NamespaceMode_POD
	if got, err := (&Containers{book: NewBook()}).pidTarget(asking); got != nil || err != nil {
		t.Errorf("in another mode: %v %v", got, err)
	}
}
