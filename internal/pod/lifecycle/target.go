package lifecycle

import (
	"fmt"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/pod"
)

// pidTarget finds the process whose PID namespace a container in mode TARGET joins.
type pidTarget struct{ book *pod.Book }

// find returns a process of a running container of the same pod, nil in other modes. The OCI runtime gets the namespace as
// /proc/PID/ns/pid, and the PID may become that of another process. So find is called twice, before the runtime joins and
// afterwards. If it is the same process both times, the PID was its own in between: a process that gets the PID later has
// another start time.
func (t pidTarget) find(rec *pod.ContainerRecord) (*proc.Process, error) {
	options := rec.Config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	if options.GetPid() != runtimeapi.NamespaceMode_TARGET {
		return nil, nil
	}
	target, err := t.book.Container(options.GetTargetId())
	if err != nil {
		return nil, fmt.Errorf("PID namespace target: %w", err)
	}
	of := target.Record()
	if of.Sandbox != rec.Sandbox || of.State != pod.Running || !of.Process.Alive() {
		return nil, fmt.Errorf("PID namespace target %s is not a running container of this pod: %w", target.ID, errdefs.ErrFailedPrecondition)
	}
	return &of.Process, nil
}

// pidNamespace names the process's PID namespace, "" without a process.
func pidNamespace(p *proc.Process) string {
	if p == nil {
		return ""
	}
	return p.NamespacePath("pid")
}
