package cri

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"

	"github.com/pinfold-run/pinfold/internal/image/registry"
	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/pod/lifecycle"
	"github.com/pinfold-run/pinfold/pin"
)

// classes maps error classes to gRPC codes. No other place does that. The first match counts.
var classes = []struct {
	class error
	code  codes.Code
}{
	{errdefs.ErrInvalidArgument, codes.InvalidArgument},
	{pin.ErrInvalid, codes.InvalidArgument},
	{context.DeadlineExceeded, codes.DeadlineExceeded},
	{context.Canceled, codes.Canceled},
	{errdefs.ErrAborted, codes.Aborted},
	{errdefs.ErrUnauthenticated, codes.Unauthenticated},
	{errdefs.ErrPermissionDenied, codes.PermissionDenied},
	{errdefs.ErrNotFound, codes.NotFound},
	{errdefs.ErrAlreadyExists, codes.AlreadyExists},
	{pin.ErrUnsupported, codes.FailedPrecondition},
	{errdefs.ErrFailedPrecondition, codes.FailedPrecondition},
	{errdefs.ErrUnavailable, codes.Unavailable},
	{errdefs.ErrResourceExhausted, codes.ResourceExhausted},
	{syscall.ENOSPC, codes.ResourceExhausted},
	{syscall.EMFILE, codes.ResourceExhausted},
	{syscall.ENFILE, codes.ResourceExhausted},
	{errdefs.ErrDataLoss, codes.DataLoss},
	{errdefs.ErrNotImplemented, codes.Unimplemented},
}

// names are errors that clients recognize by the beginning of the message, because gRPC passes on
// only code and message. A code here comes before the one in classes.
var names = []struct {
	class, name error
	code        codes.Code
}{
	// A kubelet checks the message of a failed pull only if the code is Unknown.
	{registry.ErrUnavailable, crierrors.ErrRegistryUnavailable, codes.Unknown},
	{ocispec.ErrRecursiveReadOnly, crierrors.ErrRROUnsupported, codes.OK},
	{lifecycle.ErrImageVolume, crierrors.ErrImageVolumeMountFailed, codes.OK},
}

// ToStatus gives an error its gRPC code, and CRI's name if it has one. An error without a class is
// Internal.
func ToStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	text, code := short(err.Error()), codes.OK
	for _, n := range names {
		if errors.Is(err, n.class) {
			text, code = n.name.Error()+": "+text, n.code
			break
		}
	}
	if code == codes.OK {
		code = codeOf(err)
	}
	return status.Error(code, text)
}

// maxText limits an error's text, in bytes: it may contain names that containers, images and
// clients chose.
const maxText = 4 << 10

// short removes the middle of a text that is too long. The beginning has the step, the end has the
// cause.
func short(text string) string {
	if len(text) <= maxText {
		return text
	}
	return fmt.Sprintf("%s … (%d bytes left out) … %s", strings.ToValidUTF8(text[:maxText/2], ""), len(text)-maxText,
		strings.ToValidUTF8(text[len(text)-maxText/2:], ""))
}

// Code is the name of an error's gRPC code, for metrics; "OK" for nil.
func Code(err error) string {
	if err == nil {
		return codes.OK.String()
	}
	return codeOf(err).String()
}

func codeOf(err error) codes.Code {
	for _, c := range classes {
		if errors.Is(err, c.class) {
			return c.code
		}
	}
	return codes.Internal
}

// answer is ToStatus for the answer to a request. If a call to stop, remove or query an object
// returns NotFound, a kubelet concludes that the object does not exist, and forgets it. So those
// calls may return NotFound only if the object of the request is missing, not if something inside
// is: a file, a handler, another object. Calls that make something may return it for anything that
// the request names.
func answer(req any, err error) error {
	translated := ToStatus(err)
	s := status.Convert(translated)
	if s.Code() != codes.NotFound || makes(req) {
		return translated
	}
	var missing *pod.MissingError
	switch r := req.(type) {
	case interface{ GetContainerId() string }:
		if errors.As(err, &missing) && missing.ID == r.GetContainerId() {
			return translated
		}
	case interface{ GetPodSandboxId() string }:
		if errors.As(err, &missing) && missing.ID == r.GetPodSandboxId() {
			return translated
		}
	}
	return status.Error(codes.FailedPrecondition, s.Message())
}

func makes(req any) bool {
	switch req.(type) {
	case *runtimeapi.RunPodSandboxRequest, *runtimeapi.CreateContainerRequest, *runtimeapi.PullImageRequest:
		return true
	}
	return false
}
