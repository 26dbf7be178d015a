package lifecycle

import (
	"context"

	"github.com/pinfold-run/pinfold/internal/pod"
)

// sandboxPlugins is the step "plugins" of a sandbox.
type sandboxPlugins struct{ told told }

// Do shows the pod to plugins, complete but not yet ready. They may refuse it.
func (s sandboxPlugins) Do(ctx context.Context, box *pod.Sandbox) error {
	return s.told.askPod(ctx, pod.PodRun, box.Record())
}

// Undo tells plugins that the pod is being removed, with the whole record. It never fails: no plugin keeps a pod.
func (s sandboxPlugins) Undo(ctx context.Context, box *pod.Sandbox) error {
	s.told.pod(ctx, pod.PodStopped, box.Record())
	s.told.pod(ctx, pod.PodRemoved, box.Record())
	return nil
}

// stopped tells plugins that the pod's containers have ended. It never fails.
func (s sandboxPlugins) stopped(ctx context.Context, box *pod.Sandbox) error {
	s.told.pod(ctx, pod.PodStopped, box.Record())
	return nil
}
