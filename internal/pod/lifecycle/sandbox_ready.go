package lifecycle

import (
	"context"

	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/steps"
)

// sandboxReady is the step "ready": from here on the pod admits containers.
type sandboxReady struct {
	records *pod.Records
	engine  *steps.Engine
}

// Do records the state, the inode numbers of the namespaces, and how long the steps took.
func (s sandboxReady) Do(_ context.Context, box *pod.Sandbox) error {
	return s.records.ChangeSandbox(box, func(r *pod.SandboxRecord) {
		r.State, r.Pins = pod.Ready, box.Pinned
		r.Timeline = s.engine.Timeline(r.Object())
	})
}
