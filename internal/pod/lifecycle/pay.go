package lifecycle

import (
	"context"
	"fmt"

	"github.com/pinfold-run/pinfold/internal/pod"
)

// Pay tries again what a sandbox owes: the rest of its stop or of its removal.
func (s *Sandboxes) Pay(ctx context.Context, box *pod.Sandbox) error {
	box.Order.Lock()
	defer box.Order.Unlock()
	if box.Erased {
		return nil
	}
	switch box.Record().State {
	case pod.Creating, pod.Removing:
		return s.eraseAll(ctx, box)
	case pod.Stopped:
		if err := s.node.Engine.Run(ctx, s.stopOperation(box)); err != nil {
			return err
		}
		if rec := box.Record(); rec.OwesNetwork() {
			return fmt.Errorf("network: %s", rec.Network.LastError)
		}
	}
	return nil
}

// Pay tries again what a container owes: the rest of its removal, or of what follows its end.
func (s *Containers) Pay(ctx context.Context, c *pod.Container) error {
	c.Order.Lock()
	defer c.Order.Unlock()
	if c.Erased {
		return nil
	}
	switch c.Record().State {
	case pod.Creating, pod.Removing:
		return s.eraseAll(ctx, c)
	case pod.Exited:
		return s.settle(ctx, c)
	}
	return nil
}
