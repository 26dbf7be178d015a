package cri

import (
	"context"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/pod/session"
	"github.com/pinfold-run/pinfold/internal/stream"
)

// sessions serves the RPCs of sessions: what runs at once, and the addresses of those that a client connects to.
type sessions struct {
	sessions *session.Sessions
	streams  *stream.Server
}

// Exec returns the URL for running a command in a container with a client.
func (r *sessions) Exec(_ context.Context, req *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	url, err := r.streams.Exec(req)
	if err != nil {
		return nil, err
	}
	return &runtimeapi.ExecResponse{Url: url}, nil
}

// Attach returns the URL for attaching a client to a container's own streams.
func (r *sessions) Attach(_ context.Context, req *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	url, err := r.streams.Attach(req)
	if err != nil {
		return nil, err
	}
	return &runtimeapi.AttachResponse{Url: url}, nil
}

// PortForward returns the URL for a client's connections to ports of a pod.
func (r *sessions) PortForward(_ context.Context, req *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	url, err := r.streams.PortForward(req)
	if err != nil {
		return nil, err
	}
	return &runtimeapi.PortForwardResponse{Url: url}, nil
}
