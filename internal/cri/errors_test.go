package cri

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/image/registry"
	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/pod/lifecycle"
	"github.com/pinfold-run/pinfold/internal/steps"
	"github.com/pinfold-run/pinfold/pin"
)

func TestEveryClassOfErrorHasItsCode(t *testing.T) {
	for _, c := range []struct {
		err  error
		code codes.Code
	}{
		{errdefs.ErrInvalidArgument, codes.InvalidArgument},
		{pin.ErrInvalid, codes.InvalidArgument},
		{errdefs.ErrNotFound, codes.NotFound},
		{errdefs.ErrFailedPrecondition, codes.FailedPrecondition},
		{pin.ErrUnsupported, codes.FailedPrecondition},
		{errdefs.ErrUnavailable, codes.Unavailable},
		{errdefs.ErrUnauthenticated, codes.Unauthenticated},
		{errdefs.ErrDataLoss, codes.DataLoss},
		{context.DeadlineExceeded, codes.DeadlineExceeded},
		{context.Canceled, codes.Canceled},
		{syscall.ENOSPC, codes.ResourceExhausted},
		{errors.New("of no class"), codes.Internal},
		{status.Error(codes.OutOfRange, "has one"), codes.OutOfRange},
	} {
		// The class is found through all wrapping errors, also that of the failed step.
		wrapped := c.err
		if _, ok := status.FromError(c.err); !ok {
			wrapped = &steps.Error{Operation: "Op", Object: "x", Step: "s", Cause: fmt.Errorf("around: %w", c.err)}
		}
		if got := status.Code(ToStatus(wrapped)); got != c.code {
			t.Errorf("%v: %v, want %v", c.err, got, c.code)
		}
	}
	if ToStatus(nil) != nil {
		t.Error("no error became one")
	}
}

func TestAnErrorsTextIsBoundedAndKeepsStepAndCause(t *testing.T) {
	err := fmt.Errorf("RemoveContainer: rootfs: %s: %w", strings.Repeat("ä/", 1<<20), syscall.ENOSPC)
	got := status.Convert(ToStatus(err)).Message()
	if len(got) > maxText+100 || !strings.HasPrefix(got, "RemoveContainer: rootfs: ") || !strings.HasSuffix(got, syscall.ENOSPC.Error()) {
		t.Errorf("%d bytes: %s", len(got), got)
	}
}

func TestCRIsNamesOfErrorsBeginTheMessage(t *testing.T) {
	for _, c := range []struct {
		err  error
		name string
		code codes.Code
	}{
		// The kubelet removes the code from the text that it compares only if the code is Unknown.
		{fmt.Errorf("look up at x: connection refused: %w", registry.ErrUnavailable), "RegistryUnavailable: ", codes.Unknown},
		{fmt.Errorf("mounts[0].recursive_read_only: %w", ocispec.ErrRecursiveReadOnly), "RROUnsupported: ", codes.FailedPrecondition},
		{fmt.Errorf("%w 0: %w", lifecycle.ErrImageVolume, errdefs.ErrNotFound), "ImageVolumeMountFailed: ", codes.NotFound},
		{fmt.Errorf("%w 0: no class", lifecycle.ErrImageVolume), "ImageVolumeMountFailed: ", codes.Internal},
		{fmt.Errorf("daemon ends: %w", errdefs.ErrUnavailable), "", codes.Unavailable},
	} {
		wrapped := &steps.Error{Operation: "Op", Object: "x", Step: "s", Cause: c.err}
		got := status.Convert(ToStatus(wrapped))
		if got.Code() != c.code || got.Message() != c.name+wrapped.Error() {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}

// allRequests are all requests that query, change or remove one pod or container.
func allRequests(id string) []any {
	return []any{
		&runtimeapi.StopPodSandboxRequest{PodSandboxId: id},
		&runtimeapi.RemovePodSandboxRequest{PodSandboxId: id},
		&runtimeapi.PodSandboxStatusRequest{PodSandboxId: id},
		&runtimeapi.PodSandboxStatsRequest{PodSandboxId: id},
		&runtimeapi.PortForwardRequest{PodSandboxId: id},
		&runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: id},
		&runtimeapi.StartContainerRequest{ContainerId: id},
		&runtimeapi.StopContainerRequest{ContainerId: id},
		&runtimeapi.RemoveContainerRequest{ContainerId: id},
		&runtimeapi.ContainerStatusRequest{ContainerId: id},
		&runtimeapi.ContainerStatsRequest{ContainerId: id},
		&runtimeapi.UpdateContainerResourcesRequest{ContainerId: id},
		&runtimeapi.ExecSyncRequest{ContainerId: id},
		&runtimeapi.ExecRequest{ContainerId: id},
		&runtimeapi.AttachRequest{ContainerId: id},
		&runtimeapi.ReopenContainerLogRequest{ContainerId: id},
		&runtimeapi.CheckpointContainerRequest{ContainerId: id},
	}
}

func TestNotFoundIsSaidOnlyOfTheObjectOfTheRequest(t *testing.T) {
	const id = "4f1c"
	own := &pod.MissingError{Kind: "object", ID: id}
	for _, inner := range []error{
		errdefs.ErrNotFound,
		fmt.Errorf("runtime handler %q is not configured: %w", "other", errdefs.ErrNotFound),
		&pod.MissingError{Kind: "sandbox", ID: "another"},
	} {
		wrapped := &steps.Error{Operation: "Op", Object: "x", Step: "s", Cause: fmt.Errorf("around: %w", inner)}
		for _, req := range append(allRequests(id), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: id}}) {
			got := status.Convert(answer(req, wrapped))
			if got.Code() != codes.FailedPrecondition || got.Message() != wrapped.Error() {
				t.Errorf("%T, %v: %v", req, inner, got)
			}
		}
		// A call that makes something may not find any of its parts.
		for _, req := range []any{&runtimeapi.RunPodSandboxRequest{}, &runtimeapi.CreateContainerRequest{PodSandboxId: id}, &runtimeapi.PullImageRequest{}} {
			if got := status.Code(answer(req, wrapped)); got != codes.NotFound {
				t.Errorf("%T, %v: %v", req, inner, got)
			}
		}
	}
	for _, req := range allRequests(id) {
		if got := status.Code(answer(req, fmt.Errorf("around: %w", own))); got != codes.NotFound {
			t.Errorf("%T of what is not there: %v", req, got)
		}
		if answer(req, nil) != nil {
			t.Errorf("%T: no error became one", req)
		}
	}
}
