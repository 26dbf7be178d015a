package containerd

import (
	"context"
	"os"
	"strings"

	introspectionapi "github.com/containerd/containerd/api/services/introspection/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	sandboxapi "github.com/containerd/containerd/api/services/sandbox/v1"
	versionapi "github.com/containerd/containerd/api/services/version/v1"
	"github.com/containerd/containerd/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pinfold-run/pinfold/internal/pod"
)

// version serves version.Version.
type version struct {
	versionapi.UnimplementedVersionServer
	release string
}

// Version says whose answers these are like, and who gives them.
func (s *version) Version(context.Context, *emptypb.Empty) (*versionapi.VersionResponse, error) {
	return &versionapi.VersionResponse{Version: apiVersion + "+pinfold", Revision: "pinfold " + s.release}, nil
}

// namespaces serves namespaces.Namespaces.
type namespaces struct {
	namespacesapi.UnimplementedNamespacesServer
}

// Get returns the one namespace.
func (s *namespaces) Get(_ context.Context, req *namespacesapi.GetNamespaceRequest) (*namespacesapi.GetNamespaceResponse, error) {
	if req.GetName() != namespace {
		return nil, status.Errorf(codes.NotFound, "namespace %q: not found", req.GetName())
	}
	return &namespacesapi.GetNamespaceResponse{Namespace: &namespacesapi.Namespace{Name: namespace}}, nil
}

// List returns the one namespace.
func (s *namespaces) List(context.Context, *namespacesapi.ListNamespacesRequest) (*namespacesapi.ListNamespacesResponse, error) {
	return &namespacesapi.ListNamespacesResponse{Namespaces: []*namespacesapi.Namespace{{Name: namespace}}}, nil
}

// introspection serves introspection.Introspection.
type introspection struct {
	introspectionapi.UnimplementedIntrospectionServer
	root string
}

// Plugins names the parts of containerd whose answers are here.
func (s *introspection) Plugins(_ context.Context, req *introspectionapi.PluginsRequest) (*introspectionapi.PluginsResponse, error) {
	filter, err := parseFilters(req.GetFilters())
	if err != nil {
		return nil, err
	}
	resp := &introspectionapi.PluginsResponse{}
	for _, p := range []*introspectionapi.Plugin{
		{Type: "io.containerd.snapshotter.v1", ID: snapshotter, Exports: map[string]string{"root": s.root}},
		{Type: "io.containerd.runtime.v2", ID: "task"},
		{Type: "io.containerd.grpc.v1", ID: "cri"},
		{Type: "io.containerd.grpc.v1", ID: "containers"},
		{Type: "io.containerd.grpc.v1", ID: "content"},
		{Type: "io.containerd.grpc.v1", ID: "events"},
		{Type: "io.containerd.grpc.v1", ID: "images"},
		{Type: "io.containerd.grpc.v1", ID: "introspection"},
		{Type: "io.containerd.grpc.v1", ID: "namespaces"},
		{Type: "io.containerd.grpc.v1", ID: "tasks"},
		{Type: "io.containerd.grpc.v1", ID: "version"},
	} {
		if matches(filter, p, pluginField) {
			resp.Plugins = append(resp.Plugins, p)
		}
	}
	return resp, nil
}

func pluginField(p *introspectionapi.Plugin, path []string) (string, bool) {
	switch strings.Join(path, ".") {
	case "type":
		return p.Type, true
	case "id":
		return p.ID, true
	}
	return "", false
}

// Server says which process this is.
func (s *introspection) Server(context.Context, *emptypb.Empty) (*introspectionapi.ServerResponse, error) {
	return &introspectionapi.ServerResponse{Pid: uint64(os.Getpid())}, nil
}

// sandboxes serves sandbox.Store.
type sandboxes struct {
	sandboxapi.UnimplementedStoreServer
	objects
}

// Get returns a pod.
func (s *sandboxes) Get(ctx context.Context, req *sandboxapi.StoreGetRequest) (*sandboxapi.StoreGetResponse, error) {
	box, _, err := s.find(ctx, req.GetSandboxID())
	if err != nil {
		return nil, err
	}
	if box == nil {
		return nil, status.Errorf(codes.NotFound, "sandbox %q in namespace %q: not found", req.GetSandboxID(), namespace)
	}
	return &sandboxapi.StoreGetResponse{Sandbox: s.stored(box)}, nil
}

// List returns the pods that match one of the filters.
func (s *sandboxes) List(ctx context.Context, req *sandboxapi.StoreListRequest) (*sandboxapi.StoreListResponse, error) {
	filter, ours, err := selection(ctx, req.GetFilters())
	if err != nil {
		return nil, err
	}
	resp := &sandboxapi.StoreListResponse{}
	if !ours {
		return resp, nil
	}
	for _, rec := range s.sandboxRecords() {
		box := s.stored(rec)
		if matches(filter, box, sandboxField) {
			resp.List = append(resp.List, box)
		}
	}
	return resp, nil
}

func sandboxField(box *types.Sandbox, path []string) (string, bool) {
	if len(path) == 0 {
		return "", false
	}
	switch path[0] {
	case "id":
		return box.SandboxID, true
	case "labels":
		return label(box.Labels, path[1:])
	}
	return "", false
}

func (s *sandboxes) stored(rec *pod.SandboxRecord) *types.Sandbox {
	c := s.sandbox(rec)
	return &types.Sandbox{
		SandboxID: rec.ID, Runtime: &types.Sandbox_Runtime{Name: runtimeName}, Spec: c.Spec, Labels: c.Labels,
		CreatedAt: timestamppb.New(rec.Created), UpdatedAt: timestamppb.New(rec.Created), Extensions: c.Extensions, Sandboxer: "podsandbox",
	}
}
