package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// pinderTimeout is how long pinder may take to answer before the node is not ready. Pinder may be short of CPU, or be
// in the middle of an upgrade. The kubelet waits for two minutes, and asks every few seconds.
const pinderTimeout = 10 * time.Second

// ready says why this node can run no container at all now; nil if it can.
func (p *parts) ready(ctx context.Context) error {
	ask, cancel := context.WithTimeout(ctx, pinderTimeout)
	defer cancel()
	if _, _, err := p.node.pinder.Processes(ask); err != nil {
		return err
	}
	var root unix.Statfs_t
	if err := unix.Statfs(p.Places.Root, &root); err != nil || root.Flags&unix.ST_RDONLY != 0 {
		return fmt.Errorf("the file system of %s cannot be written to, as after an error of its disk: %w", p.Places.Root, errors.Join(err, errdefs.ErrFailedPrecondition))
	}
	h, err := p.node.handlers.Find(ctx, "")
	if err != nil {
		return err
	}
	if errdefs.IsFailedPrecondition(h.Problem) {
		return h.Problem
	}
	return nil // a runtime that does not tell its features may have all that is asked for
}
