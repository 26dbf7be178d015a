package lifecycle

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/pod"
)

// ReopenLog makes the container's log go on in a new file at its path, at the border of a record.
func (s *Containers) ReopenLog(ctx context.Context, id string) error {
	c, err := s.book.Container(id)
	if err != nil {
		return err
	}
	if state := c.Record().State; state != pod.Running {
		return fmt.Errorf("ReopenContainerLog: container %s is %s, not running: %w", c.ID, state, errdefs.ErrFailedPrecondition)
	}
	if err := s.node.Pinder.ReopenLog(ctx, c.ID); err != nil {
		return fmt.Errorf("ReopenContainerLog: container %s: %w", c.ID, err)
	}
	return nil
}
