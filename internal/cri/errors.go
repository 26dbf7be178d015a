package cri

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"

	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/pin"
)

// classes maps error classes to gRPC codes: the only place that does. The first match counts.
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

// names are errors that clients tell by the beginning of the message: that is what is left of them behind gRPC.
// A code, where one is given, goes before those of classes.
var names = []struct {
	class, name error
	code        codes.Code
}{
	// A kubelet looks at the message of a pull alone only if the code is Unknown.
	{image.ErrRegistryUnavailable, crierrors.ErrRegistryUnavailable, codes.Unknown},
	{ocispec.ErrRecursiveReadOnly, crierrors.ErrRROUnsupported, codes.OK},
	{pod.ErrImageVolume, crierrors.ErrImageVolumeMountFailed, codes.OK},
}

// ToStatus gives an error its gRPC code, and the name that CRI has for it; one of no class is Internal.
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

// maxText bounds an error's text, in bytes: it may carry names that containers, images and clients made.
const maxText = 4 << 10

// short takes the middle out of a text that is too long: the step stands at the beginning, the cause at the end.
func short(text string) string {
	if len(text) <= maxText {
		return text
	}
	return fmt.Sprintf("%s … (%d bytes left out) … %s", strings.ToValidUTF8(text[:maxText/2], ""), len(text)-maxText,
		strings.ToValidUTF8(text[len(text)-maxText/2:], ""))
}

func codeOf(err error) codes.Code {
	for _, c := range classes {
		if errors.Is(err, c.class) {
			return c.code
		}
	}
	return codes.Internal
}

// translateErrors is the interceptor that every unary call passes. A panic in one request is that
// request's error and no other's.
func translateErrors(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (resp any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = status.Error(codes.Internal, fmt.Sprintf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	resp, err = handle(ctx, req)
	return resp, answer(req, err)
}

// answer is ToStatus for the answer to a request. A kubelet that stops, removes or looks at an object takes NotFound
// for the object's absence, and forgets it. So NotFound is only said of the object that the request is about, and
// not because something was missing inside: a file, a handler, another object. Requests that make something of
// parts that they name may say it of any part.
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
	case *wrapperspb.StringValue: // the operator's own command (package admin), which tells no codes apart
		return translated
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

// translateStreamErrors does the same for streams.
func translateStreamErrors(service any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = status.Error(codes.Internal, fmt.Sprintf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	return ToStatus(handle(service, stream))
}
