package containerd

import (
	"context"
	"errors"
	"log/slog"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pinfold-run/pinfold/internal/fault"
)

// changing are the beginnings of the methods of containerd's API that change something.
var changing = []string{
	"Create", "Update", "Delete", "Start", "Stop", "Shutdown", "Kill", "Exec", "ResizePty", "CloseIO", "Pause", "Resume", "Checkpoint",
	"Write", "Abort", "Prepare", "View", "Commit", "Remove", "Cleanup", "Apply", "Diff", "Publish", "Forward", "AddResource",
	"DeleteResource", "Transfer", "Activate", "Deactivate", "Set",
}

// refusal is the answer to a call that the facade does not serve.
func refusal(method string) error {
	name := path.Base(method)
	for _, verb := range changing {
		if strings.HasPrefix(name, verb) {
			return status.Errorf(codes.PermissionDenied, "Pinfold's containerd socket is read-only: it does not serve %s; use CRI, or the command pinfold", method)
		}
	}
	return status.Errorf(codes.Unimplemented, "Pinfold's containerd socket does not serve %s", method)
}

// unknown answers calls of services that the facade does not have.
func unknown(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	return refusal(method)
}

// interceptors give errors their codes. A panic fails only the call that caused it, and is in the log.
type interceptors struct{ log *slog.Logger }

func (i interceptors) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (resp any, err error) {
	err = fault.Guard(func() error {
		resp, err = handle(ctx, req)
		return err
	})
	return resp, i.translate(info.FullMethod, err)
}

func (i interceptors) stream(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	return i.translate(info.FullMethod, fault.Guard(func() error { return handle(service, stream) }))
}

// classes are the codes of errors that have none.
var classes = []struct {
	class error
	code  codes.Code
}{
	{errdefs.ErrNotFound, codes.NotFound},
	{errdefs.ErrInvalidArgument, codes.InvalidArgument},
	{errdefs.ErrDataLoss, codes.DataLoss},
	{context.Canceled, codes.Canceled},
	{context.DeadlineExceeded, codes.DeadlineExceeded},
}

func (i interceptors) translate(method string, err error) error {
	if stack := fault.Stack(err); stack != "" {
		i.log.Error("a call of containerd's API failed", "operation", method, "error", err, "stack", stack)
	}
	if err == nil {
		return nil
	}
	if s, ok := status.FromError(err); ok {
		if s.Code() == codes.Unimplemented {
			return refusal(method)
		}
		return err
	}
	for _, c := range classes {
		if errors.Is(err, c.class) {
			return status.Error(c.code, err.Error())
		}
	}
	return status.Error(codes.Internal, err.Error())
}
