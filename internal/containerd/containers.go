package containerd

import (
	"context"
	"maps"
	"strings"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pinfold-run/pinfold/internal/pod"
)

// Labels as containerd's CRI sets them, and what it says of a runtime and a file system like ours.
const (
	kindLabel     = "io.cri-containerd.kind"
	kindSandbox   = "sandbox"
	kindContainer = "container"

	runtimeName = "io.containerd.runc.v2"
	snapshotter = "overlayfs"

	// sandboxImage stands where containerd has the name of its pause image. There is no such image. Many dashboards leave out
	// what has no image, and some agents leave out what has "pause" in its image's name: a pod has to pass the first and to
	// be found by the second.
	sandboxImage = "pinfold.invalid/pause:none"
)

// containers serves containers.Containers.
type containers struct {
	containersapi.UnimplementedContainersServer
	objects
}

// Get returns a container or a pod.
func (s *containers) Get(ctx context.Context, req *containersapi.GetContainerRequest) (*containersapi.GetContainerResponse, error) {
	box, c, err := s.find(ctx, req.GetID())
	if err != nil {
		return nil, err
	}
	if box != nil {
		return &containersapi.GetContainerResponse{Container: s.sandbox(box)}, nil
	}
	return &containersapi.GetContainerResponse{Container: s.container(c)}, nil
}

// List returns the containers and pods that match one of the filters.
func (s *containers) List(ctx context.Context, req *containersapi.ListContainersRequest) (*containersapi.ListContainersResponse, error) {
	resp := &containersapi.ListContainersResponse{}
	err := s.each(ctx, req.GetFilters(), func(c *containersapi.Container) error {
		resp.Containers = append(resp.Containers, c)
		return nil
	})
	return resp, err
}

// ListStream is List in many messages.
func (s *containers) ListStream(req *containersapi.ListContainersRequest, stream containersapi.Containers_ListStreamServer) error {
	return s.each(stream.Context(), req.GetFilters(), func(c *containersapi.Container) error {
		return stream.Send(&containersapi.ListContainerMessage{Container: c})
	})
}

func (s *containers) each(ctx context.Context, wanted []string, do func(*containersapi.Container) error) error {
	filter, ours, err := selection(ctx, wanted)
	if err != nil || !ours {
		return err
	}
	var failed error
	take := func(c *containersapi.Container) {
		if failed == nil && matches(filter, c, field) {
			failed = do(c)
		}
	}
	for _, rec := range s.sandboxRecords() {
		take(s.sandbox(rec))
	}
	for _, rec := range s.containerRecords() {
		take(s.container(rec))
	}
	return failed
}

// parseFilters reads filters in containerd's language. Something has to match one of them; without any, all does.
func parseFilters(wanted []string) (filters.Filter, error) {
	filter, err := filters.ParseAll(wanted...)
	if err != nil {
		return nil, errdefs.ErrInvalidArgument.WithMessage(err.Error())
	}
	return filter, nil
}

// selection is the filter of a list, and whether the list is of the namespace of our pods; see here.
func selection(ctx context.Context, wanted []string) (filter filters.Filter, ours bool, err error) {
	if ours, err = here(ctx); err == nil {
		filter, err = parseFilters(wanted)
	}
	return filter, ours, err
}

// matches reports whether v, whose fields the function reads, passes a filter.
func matches[T any](filter filters.Filter, v T, field func(T, []string) (string, bool)) bool {
	return filter.Match(filters.AdapterFunc(func(path []string) (string, bool) { return field(v, path) }))
}

// field is what a filter's path means on a container.
func field(c *containersapi.Container, path []string) (string, bool) {
	if len(path) == 0 {
		return "", false
	}
	switch path[0] {
	case "id":
		return c.ID, true
	case "image":
		return c.Image, c.Image != ""
	case "runtime":
		return c.Runtime.Name, len(path) == 2 && path[1] == "name"
	case "labels":
		return label(c.Labels, path[1:])
	}
	return "", false
}

// label finds a label. The filter's parser has split its name at dots.
func label(labels map[string]string, path []string) (string, bool) {
	value, ok := labels[strings.Join(path, ".")]
	return value, ok
}

// container is a container in containerd's words.
func (o objects) container(rec *pod.ContainerRecord) *containersapi.Container {
	return &containersapi.Container{
		ID:          rec.ID,
		Labels:      labels(rec.Config.GetLabels(), kindContainer),
		Image:       rec.ImageTag(),
		Runtime:     &containersapi.Container_Runtime{Name: runtimeName},
		Spec:        o.containerSpec(rec),
		Snapshotter: snapshotter,
		SnapshotKey: rec.ID,
		CreatedAt:   timestamppb.New(rec.Times.Created),
		UpdatedAt:   timestamppb.New(rec.Times.Created),
		Extensions:  containerExtensions(rec),
		Sandbox:     rec.Sandbox,
	}
}

// sandbox is a pod as the container that it is in containerd.
func (o objects) sandbox(rec *pod.SandboxRecord) *containersapi.Container {
	return &containersapi.Container{
		ID:          rec.ID,
		Labels:      labels(rec.Config.GetLabels(), kindSandbox),
		Image:       sandboxImage,
		Runtime:     &containersapi.Container_Runtime{Name: runtimeName},
		Spec:        o.sandboxSpec(rec),
		Snapshotter: snapshotter,
		SnapshotKey: rec.ID,
		CreatedAt:   timestamppb.New(rec.Created),
		UpdatedAt:   timestamppb.New(rec.Created),
		Extensions:  sandboxExtensions(rec),
		Sandbox:     rec.ID,
	}
}

func labels(own map[string]string, kind string) map[string]string {
	all := maps.Clone(own)
	if all == nil {
		all = map[string]string{}
	}
	all[kindLabel] = kind
	return all
}
