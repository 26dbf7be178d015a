package client

import (
	"context"
	"time"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// Update gives a created or running container other resources: OCI's LinuxResources as JSON, in which what is
// left out stays as it is. ErrNotFound if pinder does not know the container, ErrFailedPrecondition if it has
// ended, ErrNotImplemented from a pinder of an older release.
func (c *Client) Update(ctx context.Context, id string, resources []byte, timeout time.Duration) error {
	defer c.asked.during(ctx, id, "update")()
	return c.request(ctx, wire.TypeUpdate, wire.Update{
		ID: id, Resources: resources, TimeoutMillis: millis(ctx, timeout.Milliseconds()),
	}, nil)
}

// Checkpoint makes the OCI runtime write a container's state; the container goes on. Errors as Update.
func (c *Client) Checkpoint(ctx context.Context, r wire.Checkpoint) error {
	r.TimeoutMillis = millis(ctx, r.TimeoutMillis)
	defer c.asked.during(ctx, r.ID, "checkpoint")()
	return c.request(ctx, wire.TypeCheckpoint, r, nil)
}
