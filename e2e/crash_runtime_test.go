package e2e

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestARuntimeThatFailsFailsTheContainerAndNoOther tries all the ways in which an OCI runtime can
// fail at "create". The error names the step, nothing is listed, and the same request succeeds the
// next time.
func TestARuntimeThatFailsFailsTheContainerAndNoOther(t *testing.T) {
	s := newSubject(t, "userns")
	if err := s.runPod(); err != nil {
		t.Fatal(err)
	}
	for _, fault := range []string{"fail out of luck", "rubbish", "signal 9", "signal 11", "after fail out of luck", "after signal 9", "late 100ms"} {
		late := strings.HasPrefix(fault, "late")
		s.order("runc:create", fault)
		err := s.create()
		if (err == nil) != late {
			t.Errorf("%s: %v", fault, err)
		}
		if err != nil {
			if text := messageOf(err); !strings.Contains(text, "step runtime create") {
				t.Errorf("%s: the error does not say where: %s", fault, text)
			}
			if err := s.noContainer(); err != nil {
				t.Errorf("%s: %v", fault, err)
			}
			if err := s.create(); err != nil {
				t.Errorf("%s: the same request again: %v", fault, err)
			}
		}
		if err := s.oneContainer(); err != nil {
			t.Errorf("%s: %v", fault, err)
		}
		if err := s.remove(); err != nil {
			t.Errorf("%s: %v", fault, err)
		}
		remove(t, s.path("logs", s.name, "c.log"))
	}
	s.unharmed()
}

// TestARuntimeThatFailsAtStart: the container has ended, and its status says why.
func TestARuntimeThatFailsAtStart(t *testing.T) {
	s := newSubject(t, "userns")
	if err := s.runPod(); err != nil {
		t.Fatal(err)
	}
	for _, fault := range []string{"fail out of luck", "signal 9", "after signal 9"} {
		if err := s.create(); err != nil {
			t.Fatal(err)
		}
		s.order("runc:start", fault)
		if err := s.start(); err == nil {
			t.Errorf("%s: the container was started all the same", fault)
		}
		got, err := s.containerStatus(s.container)
		if err != nil || got.State != runtimeapi.ContainerState_CONTAINER_EXITED || got.Message == "" {
			t.Errorf("%s: %v %v", fault, got, err)
		}
		if err := s.remove(); err != nil {
			t.Errorf("%s: %v", fault, err)
		}
	}
	s.unharmed()
}

// TestARuntimeThatFailsAtDelete: what could not be removed is removed later, when the client asks
// or by the daemon itself.
func TestARuntimeThatFailsAtDelete(t *testing.T) {
	s := newSubject(t, "userns")
	for _, fault := range []string{"fail out of luck", "signal 9", "after signal 9", "late 100ms"} {
		if err := s.started(); err != nil {
			t.Fatal(err)
		}
		s.order("runc:delete", fault)
		if err := s.remove(); err != nil && s.remove() != nil {
			t.Errorf("%s: twice: %v", fault, err)
		}
		if err := s.noContainer(); err != nil {
			t.Errorf("%s: %v", fault, err)
		}
		remove(t, s.path("logs", s.name, "c.log"))
		s.unharmed()
	}
}

// TestARuntimeThatHangsAtCreateHoldsUpNothingElse: the request ends at its deadline. Meanwhile the
// bystander's pod gets new containers. When the runtime is killed, the operation ends.
func TestARuntimeThatHangsAtCreateHoldsUpNothingElse(t *testing.T) {
	s := newSubject(t, "userns")
	if err := s.runPod(); err != nil {
		t.Fatal(err)
	}
	stop := s.armed()
	defer stop.close()
	s.order("runc:create", "pause")
	_, err := s.runtime.CreateContainer(shortly(t), &runtimeapi.CreateContainerRequest{
		PodSandboxId: s.pod, Config: containerConfig("c", "sh", "-c", script),
	})
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("%v", err)
	}
	pid := <-stop.pid
	if out, _ := s.pinfold("why"); !strings.Contains(out, "runtime create") {
		t.Errorf("pinfold why does not say what it waits for:\n%s", out)
	}
	other := s.subject(operation{options: []string{"userns"}})
	if err := other.started(); err != nil {
		t.Errorf("another pod meanwhile: %v", err)
	}
	if err := other.removePods(); err != nil {
		t.Error(err)
	}
	if err := s.killVictim(runtimeVictim, pid); err != nil {
		t.Error(err)
	}
	if err := s.until("the end of the business", func() bool { return s.create() == nil }); err != nil {
		t.Error(err)
	}
	if err := s.oneContainer(); err != nil {
		t.Error(err)
	}
	s.unharmed()
}
