package lifecycle

import (
	"context"
	"fmt"

	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pod"
)

// containerPlugins is the step "plugins" of a container.
type containerPlugins struct{ told told }

// Do shows plugins the bundle's configuration and changes it as they want it. They may refuse the container.
func (s containerPlugins) Do(ctx context.Context, box *pod.Sandbox, c *pod.Container) error {
	if s.told.plugins == nil {
		return nil
	}
	changed, err := s.told.plugins.Adjust(ctx, box.Record(), c.Record(), c.Draft)
	if err != nil || !changed {
		return err
	}
	if filter := c.Draft.Linux.Seccomp; filter != nil {
		if err := ocispec.CheckSeccomp(filter); err != nil {
			return fmt.Errorf("seccomp filter as plugins want it: %w", err)
		}
	}
	return nil
}

// Undo tells plugins that the container is being removed, with the whole record. It never fails: no plugin keeps a
// container.
func (s containerPlugins) Undo(ctx context.Context, box *pod.Sandbox, c *pod.Container) error {
	s.told.container(ctx, pod.ContainerStopped, box, c)
	s.told.container(ctx, pod.ContainerRemoved, box, c)
	return nil
}

// stopped tells plugins that the container has ended. It never fails.
func (s containerPlugins) stopped(ctx context.Context, box *pod.Sandbox, c *pod.Container) error {
	s.told.container(ctx, pod.ContainerStopped, box, c)
	return nil
}
