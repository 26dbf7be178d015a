package cri

import (
	"slices"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// How many items one message of a stream has at most. Items have a kilobyte or two, and a pod's
// metrics some twenty for each container. So any batch is far below maxMessage.
const (
	batchSize        = 200
	metricsBatchSize = 10
)

// inBatches sends a list in batches. It sends no message for an empty list.
func inBatches[T any](list []T, send func([]T) error) error {
	return inBatchesOf(batchSize, list, send)
}

func inBatchesOf[T any](size int, list []T, send func([]T) error) error {
	for batch := range slices.Chunk(list, size) {
		if err := send(batch); err != nil {
			return err
		}
	}
	return nil
}

// StreamPodSandboxes is ListPodSandbox in several messages.
func (r *pods) StreamPodSandboxes(req *runtimeapi.StreamPodSandboxesRequest, stream runtimeapi.RuntimeService_StreamPodSandboxesServer) error {
	return inBatches(r.list(req.GetFilter()), func(batch []*runtimeapi.PodSandbox) error {
		return stream.Send(&runtimeapi.StreamPodSandboxesResponse{PodSandboxes: batch})
	})
}

// StreamContainers is ListContainers in several messages.
func (r *containers) StreamContainers(req *runtimeapi.StreamContainersRequest, stream runtimeapi.RuntimeService_StreamContainersServer) error {
	return inBatches(r.list(req.GetFilter()), func(batch []*runtimeapi.Container) error {
		return stream.Send(&runtimeapi.StreamContainersResponse{Containers: batch})
	})
}

// StreamImages is ListImages in several messages.
func (i *Images) StreamImages(req *runtimeapi.StreamImagesRequest, stream runtimeapi.ImageService_StreamImagesServer) error {
	return inBatches(i.list(req.GetFilter()), func(batch []*runtimeapi.Image) error {
		return stream.Send(&runtimeapi.StreamImagesResponse{Images: batch})
	})
}
