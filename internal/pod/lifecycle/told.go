package lifecycle

import (
	"context"
	"log/slog"

	"github.com/pinfold-run/pinfold/internal/pod"
)

// told tells plugins of events. Where there are no plugins it does nothing.
type told struct {
	plugins pod.Plugins
	log     *slog.Logger
}

// askPod tells plugins of a pod's event; they may refuse.
func (t told) askPod(ctx context.Context, event pod.SandboxEvent, rec *pod.SandboxRecord) error {
	if t.plugins == nil {
		return nil
	}
	return t.plugins.Pod(ctx, event, rec)
}

// pod tells plugins of a pod's event; what they say to it changes nothing.
func (t told) pod(ctx context.Context, event pod.SandboxEvent, rec *pod.SandboxRecord) {
	if err := t.askPod(ctx, event, rec); err != nil {
		t.log.Warn("a plugin objects; the pod's operation goes on", "pod_id", rec.ID, "error", err)
	}
}

// askContainer tells plugins of a container's event; they may refuse.
func (t told) askContainer(ctx context.Context, event pod.ContainerEvent, box *pod.Sandbox, c *pod.Container) error {
	if t.plugins == nil {
		return nil
	}
	return t.plugins.Container(ctx, event, box.Record(), c.Record())
}

// container tells plugins of a container's event; what they say to it changes nothing.
func (t told) container(ctx context.Context, event pod.ContainerEvent, box *pod.Sandbox, c *pod.Container) {
	if err := t.askContainer(ctx, event, box, c); err != nil {
		t.log.Warn("a plugin objects; the container's operation goes on", "container_id", c.ID, "error", err)
	}
}
