// Package cri serves CRI v1 (k8s.io/cri-api). It translates requests into calls of package pod and
// package image, and their results into responses. It decides nothing and keeps no state.
//
// There is one file for each group of calls. Errors get their codes in one place (errors.go).
package cri

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/pod/lifecycle"
	"github.com/pinfold-run/pinfold/internal/pod/recovery"
	"github.com/pinfold-run/pinfold/internal/pod/session"
	"github.com/pinfold-run/pinfold/internal/stats"
	"github.com/pinfold-run/pinfold/internal/stream"
)

// Runtime serves runtime.v1.RuntimeService. Calls that it does not have return Unimplemented.
type Runtime struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	Node       *pod.Node
	Book       *pod.Book
	Sandboxes  *lifecycle.Sandboxes
	Containers *lifecycle.Containers
	Sessions   *session.Sessions
	Debts      *recovery.Debts
	Stats      *stats.Reader
	Streams    *stream.Server
	// RuntimeVersion is Pinfold's own version.
	RuntimeVersion string
	// Ending is closed at shutdown. Then streams without an end of their own end.
	Ending <-chan struct{}
}

// Images serves runtime.v1.ImageService. Calls that it does not have return Unimplemented.
type Images struct {
	runtimeapi.UnimplementedImageServiceServer
	Node  *pod.Node
	Book  *pod.Book
	Stats *stats.Reader
}

// maxMessage is the size of one gRPC message in bytes, the kubelet's own limit.
const maxMessage = 16 << 20

// maxResponse has room for both outputs of an ExecSync, of 16 MiB each. Other answers are much
// smaller.
const maxResponse = 33 << 20

const (
	// maxCalls is how many calls one connection may have in progress. Further calls wait in the
	// client.
	maxCalls = 1000
	// maxHeaders limits a call's headers, in bytes.
	maxHeaders = 64 << 10
	// connectionIdle is how long a connection without a call stays open. Its client opens a new one
	// for the next call.
	connectionIdle = time.Minute
)

// NewServer returns a gRPC server with both services.
func NewServer(r *Runtime, i *Images) *grpc.Server {
	s := grpc.NewServer(options(connectionIdle)...)
	runtimeapi.RegisterRuntimeServiceServer(s, r)
	runtimeapi.RegisterImageServiceServer(s, i)
	return s
}

func options(idle time.Duration) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxResponse),
		grpc.MaxConcurrentStreams(maxCalls),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idle}),
		grpc.UnaryInterceptor(translateErrors),
		grpc.StreamInterceptor(translateStreamErrors),
	}
}

// Version says which API this is. The version in the request has no meaning any more.
func (r *Runtime) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{
		Version:           "0.1.0", // the version of the kubelet's API, fixed since 2016
		RuntimeName:       "pinfold",
		RuntimeVersion:    r.RuntimeVersion,
		RuntimeApiVersion: "v1",
	}, nil
}
