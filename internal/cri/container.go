package cri

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/duration"
	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/pod/lifecycle"
	"github.com/pinfold-run/pinfold/internal/steps"
)

// containers serves the RPCs of containers.
type containers struct {
	places     *pod.Places
	book       *pod.Book
	engine     *steps.Engine
	containers *lifecycle.Containers
}

// CreateContainer makes a container in a ready pod. See lifecycle.Containers.Create.
func (r *containers) CreateContainer(ctx context.Context, req *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	id, err := r.containers.Create(ctx, req.GetPodSandboxId(), req.GetSandboxConfig(), req.GetConfig())
	if err != nil {
		return nil, err
	}
	return &runtimeapi.CreateContainerResponse{ContainerId: id}, nil
}

// StartContainer runs a created container's process.
func (r *containers) StartContainer(ctx context.Context, req *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error) {
	if err := r.containers.Start(ctx, req.GetContainerId()); err != nil {
		return nil, err
	}
	return &runtimeapi.StartContainerResponse{}, nil
}

// StopContainer stops a container and kills it after the grace period. Idempotent.
func (r *containers) StopContainer(ctx context.Context, req *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error) {
	if err := r.containers.Stop(ctx, req.GetContainerId(), duration.Seconds(req.GetTimeout())); err != nil {
		return nil, err
	}
	return &runtimeapi.StopContainerResponse{}, nil
}

// RemoveContainer removes a container. It kills one that runs. Idempotent.
func (r *containers) RemoveContainer(ctx context.Context, req *runtimeapi.RemoveContainerRequest) (*runtimeapi.RemoveContainerResponse, error) {
	if err := r.containers.Remove(ctx, req.GetContainerId()); err != nil {
		return nil, err
	}
	return &runtimeapi.RemoveContainerResponse{}, nil
}

// ContainerStatus describes one container.
func (r *containers) ContainerStatus(_ context.Context, req *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	c, err := r.book.Container(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	rec := c.Record()
	if !visible(rec.State) {
		return nil, &pod.MissingError{Kind: "container", ID: req.GetContainerId(), Why: "is " + string(rec.State)}
	}
	resp := &runtimeapi.ContainerStatusResponse{Status: containerStatus(rec)}
	if req.GetVerbose() {
		resp.Info, err = r.containerInfo(rec)
	}
	return resp, err
}

// ListContainers lists the containers that match the filter, newest first.
func (r *containers) ListContainers(_ context.Context, req *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	return &runtimeapi.ListContainersResponse{Containers: r.list(req.GetFilter())}, nil
}

func (r *containers) list(f *runtimeapi.ContainerFilter) []*runtimeapi.Container {
	var list []*runtimeapi.Container
	for _, c := range r.book.Containers() {
		rec := c.Record()
		if visible(rec.State) && idMatches(rec.ID, f.GetId()) && idMatches(rec.Sandbox, f.GetPodSandboxId()) &&
			labelsMatch(rec.Config.GetLabels(), f.GetLabelSelector()) &&
			(f.GetState() == nil || f.GetState().GetState() == containerState(rec)) {
			list = append(list, &runtimeapi.Container{
				Id:           rec.ID,
				PodSandboxId: rec.Sandbox,
				Metadata:     rec.Config.GetMetadata(),
				Image:        imageOf(rec),
				ImageRef:     rec.ImageRef(),
				ImageId:      rec.Image,
				State:        containerState(rec),
				CreatedAt:    rec.Times.Created.UnixNano(),
				Labels:       rec.Config.GetLabels(),
				Annotations:  rec.Config.GetAnnotations(),
			})
		}
	}
	return list
}

func containerStatus(rec *pod.ContainerRecord) *runtimeapi.ContainerStatus {
	return &runtimeapi.ContainerStatus{
		Id:          rec.ID,
		Metadata:    rec.Config.GetMetadata(),
		State:       containerState(rec),
		CreatedAt:   rec.Times.Created.UnixNano(),
		StartedAt:   nanoseconds(rec.Times.Started),
		FinishedAt:  nanoseconds(rec.Times.Finished),
		ExitCode:    int32(rec.Exit.Code),
		Image:       imageOf(rec),
		ImageRef:    rec.ImageRef(),
		ImageId:     rec.Image,
		Reason:      rec.Exit.Reason,
		Message:     rec.Exit.Message,
		Labels:      rec.Config.GetLabels(),
		Annotations: rec.Config.GetAnnotations(),
		Mounts:      containerMounts(rec),
		LogPath:     rec.LogPath,
		Resources:   &runtimeapi.ContainerResources{Linux: rec.Config.GetLinux().GetResources()},
		User:        containerUser(rec.User),
		StopSignal:  stopSignal(rec),
	}
}

// imageOf returns the requested image. The kubelet requests an ID; users are shown the name.
func imageOf(rec *pod.ContainerRecord) *runtimeapi.ImageSpec {
	shown := &runtimeapi.ImageSpec{}
	if asked := rec.Config.GetImage(); asked != nil {
		// The record's configuration is shared and must not be changed.
		shown = proto.CloneOf(asked)
	}
	shown.Image = rec.ImageTag()
	return shown
}

// containerMounts returns the requested mounts. Each image volume has the ID of its image.
func containerMounts(rec *pod.ContainerRecord) []*runtimeapi.Mount {
	mounts := slices.Clone(rec.Config.GetMounts())
	for i, m := range rec.Mounts {
		if m.Image == "" || i >= len(mounts) {
			continue
		}
		// The record's configuration is shared and must not be changed.
		mounts[i] = proto.CloneOf(mounts[i])
		mounts[i].Image.ImageRef = m.Image
	}
	return mounts
}

// containerUser returns the identity of the first process.
func containerUser(u *pod.User) *runtimeapi.ContainerUser {
	if u == nil {
		return nil
	}
	linux := &runtimeapi.LinuxContainerUser{Uid: int64(u.UID), Gid: int64(u.GID)}
	for _, g := range u.Groups {
		linux.SupplementalGroups = append(linux.SupplementalGroups, int64(g))
	}
	return &runtimeapi.ContainerUser{Linux: linux}
}

// stopSignal is the first signal of a stop: the requested one, or the image's, or SIGTERM.
func stopSignal(rec *pod.ContainerRecord) runtimeapi.Signal {
	if asked := rec.Config.GetStopSignal(); asked != runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT {
		return asked
	}
	return ocispec.CRISignal(unix.Signal(rec.StopSignal))
}

// nanoseconds is CRI's form of a time; 0 if it has not happened.
func nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func containerState(rec *pod.ContainerRecord) runtimeapi.ContainerState {
	switch rec.State {
	case pod.Created:
		return runtimeapi.ContainerState_CONTAINER_CREATED
	case pod.Running:
		return runtimeapi.ContainerState_CONTAINER_RUNNING
	case pod.Exited:
		return runtimeapi.ContainerState_CONTAINER_EXITED
	default:
		return runtimeapi.ContainerState_CONTAINER_UNKNOWN
	}
}
