// Package cri serves CRI v1 (k8s.io/cri-api). It translates requests into calls of package pod and
// package image, and their results into responses. It decides nothing and keeps no state.
//
// There is one file for each group of calls. Errors get their codes in one place (errors.go).
package cri

import (
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/handler"
	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/pod/lifecycle"
	"github.com/pinfold-run/pinfold/internal/pod/session"
	"github.com/pinfold-run/pinfold/internal/stats"
	"github.com/pinfold-run/pinfold/internal/steps"
	"github.com/pinfold-run/pinfold/internal/stream"
)

// Parts are what the calls of CRI are translated into.
type Parts struct {
	Node       Node
	Places     *pod.Places
	Book       *pod.Book
	Engine     *steps.Engine
	Events     *pod.Events
	Sandboxes  *lifecycle.Sandboxes
	Containers *lifecycle.Containers
	Sessions   *session.Sessions
	Stats      *stats.Reader
	Streams    *stream.Server
	// Ending is closed when streams without an end of their own have to end.
	Ending <-chan struct{}
}

// Runtime serves runtime.v1.RuntimeService: it has one server for each group of RPCs. RPCs that none of them
// has answer Unimplemented.
type Runtime struct {
	unimplemented
	node
	pods
	containers
	sessions
	statistics
	events
}

// unimplemented is one level deeper than the groups, so that their methods come before its own.
type unimplemented struct {
	runtimeapi.UnimplementedRuntimeServiceServer
}

// NewRuntime returns the service that calls these parts.
func NewRuntime(p Parts) *Runtime {
	return &Runtime{
		node:       node{Node: p.Node, places: p.Places, engine: p.Engine, sandboxes: p.Sandboxes},
		pods:       pods{places: p.Places, book: p.Book, engine: p.Engine, sandboxes: p.Sandboxes},
		containers: containers{places: p.Places, book: p.Book, engine: p.Engine, containers: p.Containers},
		sessions:   sessions{sessions: p.Sessions, streams: p.Streams},
		statistics: statistics{places: p.Places, book: p.Book, sandboxes: p.Sandboxes, reader: p.Stats},
		events:     events{events: p.Events, ending: p.Ending},
	}
}

// Images serves runtime.v1.ImageService. Calls that it does not have return Unimplemented.
type Images struct {
	runtimeapi.UnimplementedImageServiceServer
	Store    *image.Store
	Handlers *handler.Set
	Paths    pod.Paths
	Book     *pod.Book
	Stats    *stats.Reader
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

// NewServer returns a gRPC server with both services. It logs failed requests. more are further
// options; interceptors among them see what the services return, before errors get their codes.
func NewServer(r *Runtime, i *Images, log *slog.Logger, more ...grpc.ServerOption) *grpc.Server {
	s := grpc.NewServer(append(options(connectionIdle, &requests{log, i.Book}), more...)...)
	runtimeapi.RegisterRuntimeServiceServer(s, r)
	runtimeapi.RegisterImageServiceServer(s, i)
	return s
}

func options(idle time.Duration, r *requests) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxResponse),
		grpc.MaxConcurrentStreams(maxCalls),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idle}),
		grpc.ChainUnaryInterceptor(r.unary),
		grpc.ChainStreamInterceptor(r.stream),
	}
}
