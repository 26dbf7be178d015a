package cri

import (
	"context"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/duration"
)

// CheckpointContainer writes the state of a running container to an archive. See lifecycle.Containers.Checkpoint.
func (r *containers) CheckpointContainer(ctx context.Context, req *runtimeapi.CheckpointContainerRequest) (*runtimeapi.CheckpointContainerResponse, error) {
	if err := r.containers.Checkpoint(ctx, req.GetContainerId(), req.GetLocation(), duration.Seconds(req.GetTimeout())); err != nil {
		return nil, err
	}
	return &runtimeapi.CheckpointContainerResponse{}, nil
}
