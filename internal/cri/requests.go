package cri

import (
	"context"
	"errors"
	"log/slog"
	"path"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/fault"
	"github.com/pinfold-run/pinfold/internal/image/secret"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/steps"
)

// requests are the interceptors of all calls. They give errors their codes, and log each failed
// request once. A panic fails only the request that caused it.
type requests struct {
	log  *slog.Logger
	book *pod.Book
}

// unary is the interceptor of unary calls.
func (r *requests) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (resp any, err error) {
	began := time.Now()
	cause := fault.Guard(func() error {
		resp, err = handle(ctx, req)
		return err
	})
	if strings.HasPrefix(info.FullMethod, "/runtime.v1.") {
		err = answer(req, cause)
	} else { // no client of the other services forgets an object
		err = ToStatus(cause)
	}
	r.ended(ctx, request{info.FullMethod, req, began}, cause, err)
	return resp, err
}

// stream is the interceptor of streams.
func (r *requests) stream(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	began := time.Now()
	cause := fault.Guard(func() error { return handle(service, stream) })
	err := ToStatus(cause)
	r.ended(stream.Context(), request{info.FullMethod, nil, began}, cause, err)
	return err
}

// request is one call.
type request struct {
	method  string
	message any // nil for a stream
	began   time.Time
}

// ended logs the end of a request. answer is what its client gets for cause.
func (r *requests) ended(ctx context.Context, req request, cause, answer error) {
	level, text := slog.LevelDebug, "request served"
	code := status.Code(answer)
	if cause != nil {
		level, text = severity(req, code), "request failed"
	}
	if !r.log.Enabled(ctx, level) {
		return
	}
	args := append([]any{"operation", path.Base(req.method)}, r.object(req.message)...)
	if cause != nil {
		args = append(args, failure(cause)...)
		args = append(args, "code", code.String())
	}
	args = append(args, "took", time.Since(req.began).Round(time.Microsecond))
	r.log.Log(ctx, level, text, args...)
}

// severity is the level of a failed request. What a client does in its ordinary work is no error of
// the node: it ends its call, or asks for the state of what is removed already.
func severity(req request, code codes.Code) slog.Level {
	switch {
	case code == codes.Canceled:
		return slog.LevelInfo
	case code == codes.NotFound && asks(req.method):
		return slog.LevelDebug
	case code == codes.Unavailable && strings.HasSuffix(req.method, "/GetContainerEvents"):
		return slog.LevelInfo // the daemon ends
	}
	return slog.LevelError
}

// asks reports whether a call only asks for a state.
func asks(method string) bool {
	return strings.HasSuffix(method, "Status") || strings.HasSuffix(method, "Stats") || strings.HasSuffix(method, "/Check")
}

// failure are the attributes of an error. Those of a step are apart, so that equal failures of
// several objects are found by them.
func failure(err error) []any {
	var args []any
	cause := err
	var failed *steps.Error
	if errors.As(err, &failed) && !errors.Is(err, context.Canceled) {
		args = append(args, "step", failed.Step)
		cause = failed.Cause
		if failed.Undo != nil {
			args = append(args, "undo_error", short(failed.Undo.Error()))
		}
	}
	if stack := steps.Stack(err); stack != "" {
		args = append(args, "stack", stack)
	}
	return append(args, "error", short(cause.Error()))
}

// object are the attributes that name what a request is about, as far as it does.
func (r *requests) object(message any) []any {
	switch m := message.(type) {
	case *runtimeapi.RunPodSandboxRequest:
		return pod.LogPod(m.GetConfig().GetMetadata(), "")
	case *runtimeapi.CreateContainerRequest:
		return pod.LogContainer(m.GetConfig().GetMetadata(), r.podOf(m.GetPodSandboxId()), "")
	case interface{ GetContainerId() string }:
		if c, err := r.book.Container(m.GetContainerId()); err == nil {
			return pod.LogContainer(c.Record().Config.GetMetadata(), r.podOf(c.Sandbox), c.ID)
		}
		return []any{"container_id", m.GetContainerId()}
	case interface{ GetPodSandboxId() string }:
		return r.podOf(m.GetPodSandboxId())
	case interface{ GetImage() *runtimeapi.ImageSpec }:
		return []any{"image", secret.Scrub(m.GetImage().GetImage(), nil)}
	case interface{ GetId() string }:
		return []any{"object", m.GetId()}
	}
	return nil
}

func (r *requests) podOf(id string) []any {
	if box, err := r.book.Sandbox(id); err == nil {
		return pod.LogPod(box.Record().Config.GetMetadata(), box.ID)
	}
	return []any{"pod_id", id}
}
