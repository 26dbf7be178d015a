package lifecycle

import (
	"context"

	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/steps"
)

// containerCreated is the step "created": from here on clients know the container.
type containerCreated struct {
	records *pod.Records
	engine  *steps.Engine
}

// Do records the state and how long the steps took.
func (s containerCreated) Do(_ context.Context, _ *pod.Sandbox, c *pod.Container) error {
	return s.records.ChangeContainer(c, func(r *pod.ContainerRecord) {
		r.State = pod.Created
		r.Timeline = s.engine.Timeline(r.Object())
	})
}
