// Package cri serves CRI v1 (k8s.io/cri-api): it translates requests into calls of package pod and
// package image, and what these return into responses. It decides nothing and keeps no state.
//
// There is one file for each group of RPCs. Errors leave through one place (errors.go).
package cri

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/stats"
	"github.com/pinfold-run/pinfold/internal/stream"
)

// Runtime serves runtime.v1.RuntimeService. RPCs it does not have answer Unimplemented.
type Runtime struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	Node       *pod.Node
	Book       *pod.Book
	Sandboxes  *pod.Sandboxes
	Containers *pod.Containers
	Debts      *pod.Debts
	Stats      *stats.Reader
	Streams    *stream.Server
	// RuntimeVersion is Pinfold's own version.
	RuntimeVersion string
	// Ending is closed when streams without an end of their own have to end.
	Ending <-chan struct{}
}

// Images serves runtime.v1.ImageService. RPCs it does not have answer Unimplemented.
type Images struct {
	runtimeapi.UnimplementedImageServiceServer
	Node  *pod.Node
	Book  *pod.Book
	Stats *stats.Reader
}

// maxMessage is the size of one gRPC message in bytes, the same that the kubelet allows.
const maxMessage = 16 << 20

// maxResponse has room for both outputs of an ExecSync, of 16 MiB each; nothing else comes near it.
const maxResponse = 33 << 20

const (
	// maxCalls is how many calls one client's connection may have in progress; more wait in the client.
	maxCalls = 1000
	// maxHeaders bounds a call's headers, in bytes.
	maxHeaders = 64 << 10
	// connectionIdle is how long a connection without a call is kept. Its client makes another when it has one.
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

// Version says which API this is. The request's version is the client's and has no meaning any more.
func (r *Runtime) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{
		Version:           "0.1.0", // the kubelet's API version, fixed since 2016
		RuntimeName:       "pinfold",
		RuntimeVersion:    r.RuntimeVersion,
		RuntimeApiVersion: "v1",
	}, nil
}
