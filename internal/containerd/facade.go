// Package containerd serves the part of containerd's gRPC API that only reads (github.com/containerd/containerd/api), so
// that programs that know containerd and not CRI find the pods of Pinfold: the kubelet's cAdvisor, agents for security and
// monitoring, ctr and nerdctl. It translates records into containerd's words, and changes nothing. It makes one thing: an
// empty group for each pod (see StandIns).
//
// All pods are in containerd's namespace k8s.io. A pod is a container of the kind "sandbox", with the pod's ID. It has no
// process of its own; see standIn.
//
// Events wait for no client. Everything that a client can make long has a limit here or in docs/limits.md.
package containerd

import (
	"log/slog"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	contentapi "github.com/containerd/containerd/api/services/content/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	introspectionapi "github.com/containerd/containerd/api/services/introspection/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	sandboxapi "github.com/containerd/containerd/api/services/sandbox/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	versionapi "github.com/containerd/containerd/api/services/version/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/stats"
)

// Parts are what the facade reads.
type Parts struct {
	Places  *pod.Places
	Book    *pod.Book
	Events  *pod.Events
	Images  *image.Store
	Stats   *stats.Reader
	Cgroups *cgroup.Hierarchies
	// Release is Pinfold's own version.
	Release string
	// Ending is closed when streams without an end of their own have to end.
	Ending <-chan struct{}
	Log    *slog.Logger
}

const (
	// namespace is the one that containerd's own CRI uses, and where all agents look.
	namespace = "k8s.io"
	// apiVersion is that of the containerd whose answers these follow. Clients compare it with versions that they need.
	apiVersion = "2.4.2"

	// maxMessage is the size of one message in bytes, as in containerd.
	maxMessage = 16 << 20
	// maxCalls is how many calls one connection may have in progress.
	maxCalls = 256
	// maxHeaders limits a call's headers, in bytes.
	maxHeaders = 64 << 10
)

// NewServer returns a server of the facade.
func NewServer(p Parts) *grpc.Server {
	calls := interceptors{p.Log}
	s := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(maxCalls), grpc.MaxHeaderListSize(maxHeaders),
		grpc.UnaryInterceptor(calls.unary), grpc.StreamInterceptor(calls.stream), grpc.UnknownServiceHandler(unknown),
	)
	objects := objects{places: p.Places, book: p.Book}
	containersapi.RegisterContainersServer(s, &containers{objects: objects})
	tasksapi.RegisterTasksServer(s, &tasks{objects: objects, stats: p.Stats, cgroups: p.Cgroups})
	eventsapi.RegisterEventsServer(s, &events{objects: objects, log: p.Events, ending: p.Ending, report: p.Log})
	imagesapi.RegisterImagesServer(s, &images{store: p.Images})
	contentapi.RegisterContentServer(s, &contents{store: p.Images})
	sandboxapi.RegisterStoreServer(s, &sandboxes{objects: objects})
	namespacesapi.RegisterNamespacesServer(s, &namespaces{})
	versionapi.RegisterVersionServer(s, &version{release: p.Release})
	introspectionapi.RegisterIntrospectionServer(s, &introspection{root: p.Places.Root})
	healthpb.RegisterHealthServer(s, health.NewServer())
	return s
}
