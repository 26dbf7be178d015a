package lifecycle

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/pinfold-run/pinfold/internal/handler"
	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
)

// runtimes finds the OCI runtimes of sandboxes, and says what the node can do with them.
type runtimes struct {
	handlers Handlers
	places   *pod.Places
	host     ocispec.Host
}

// find is the sandbox's runtime as it is configured now, for making something. If its handler is configured no more, it is
// the runtime that the sandbox was made with. The error of a missing runtime is not of the class ErrNotFound: the request
// does not name the runtime.
func (r runtimes) find(ctx context.Context, rec *pod.SandboxRecord) (handler.Handler, error) {
	runtime, err := r.handlers.Find(ctx, rec.Handler)
	if errdefs.IsNotFound(err) && rec.Means.Runtime != "" {
		return r.handlers.At(ctx, rec.Handler, rec.Means.Runtime)
	}
	if errdefs.IsNotFound(err) {
		return runtime, fmt.Errorf("the sandbox was made with a handler that is gone: %v: %w", err, errdefs.ErrFailedPrecondition) //nolint:errorlint // its class must not get through
	}
	return runtime, err
}

// hostFor is the node as the sandbox's runtime can use it.
func (r runtimes) hostFor(rec *pod.SandboxRecord) (ocispec.Host, error) {
	runtime, err := r.find(context.Background(), rec)
	if err != nil {
		return ocispec.Host{}, err
	}
	h := r.host
	h.SystemdCgroup = r.places.SystemdCgroup(rec)
	h.Seccomp = h.Seccomp && runtime.Seccomp
	h.Features.RecursiveReadOnly = h.Features.RecursiveReadOnly && runtime.RecursiveReadOnly
	h.Features.JoinedMappings = runtime.JoinedMappings
	h.Features.Annotations = ocispec.PassedAnnotations(runtime.Annotations)
	return h, nil
}

// takeRlimits moves the resource limits out of a bundle's configuration where the OCI runtime could not set them, and
// returns them; pinder gives them to the runtime, and the container inherits them.
//
// runc sets the limits of a container from outside of the container's user namespace, which needs CAP_SYS_RESOURCE there
// (check_prlimit_permission in kernel/sys.c), and the node's root has that only in namespaces that belong to root, or
// by a capability that some nodes withhold from it. crun sets them from within.
func (r runtimes) takeRlimits(rec *pod.SandboxRecord, config *specs.Spec) ([]wire.Rlimit, error) {
	host, err := r.hostFor(rec)
	if err != nil {
		return nil, err
	}
	if host.RlimitCeilings == nil || host.Features.JoinedMappings || rec.Mappings() == nil {
		return nil, nil
	}
	var limits []wire.Rlimit
	for _, l := range config.Process.Rlimits {
		limits = append(limits, wire.Rlimit{Type: l.Type, Soft: l.Soft, Hard: l.Hard})
	}
	config.Process.Rlimits = nil
	return limits, nil
}
