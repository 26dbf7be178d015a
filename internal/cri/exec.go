package cri

import (
	"context"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/duration"
)

// ExecSync runs a command in a container and returns its output and exit code.
func (r *sessions) ExecSync(ctx context.Context, req *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	result, err := r.sessions.ExecSync(ctx, req.GetContainerId(), req.GetCmd(), duration.Seconds(req.GetTimeout()))
	if err != nil {
		return nil, err
	}
	// The context ends when the answer has been sent.
	context.AfterFunc(ctx, result.Release)
	return &runtimeapi.ExecSyncResponse{Stdout: result.Stdout, Stderr: result.Stderr, ExitCode: int32(result.Code)}, nil
}

// ReopenContainerLog makes a running container's log continue in a new file.
func (r *containers) ReopenContainerLog(ctx context.Context, req *runtimeapi.ReopenContainerLogRequest) (*runtimeapi.ReopenContainerLogResponse, error) {
	if err := r.containers.ReopenLog(ctx, req.GetContainerId()); err != nil {
		return nil, err
	}
	return &runtimeapi.ReopenContainerLogResponse{}, nil
}
