// Package admin serves what Pinfold offers beyond CRI: pinfold.v1.NodeService, on the same socket. Its messages are
// written in api/pinfold/v1.
package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pinfoldv1 "github.com/pinfold-run/pinfold/api/pinfold/v1"
	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/pod/recovery"
	"github.com/pinfold-run/pinfold/internal/steps"
)

// Images is what the service needs of the store of images.
type Images interface {
	// Load stores the images of an archive.
	Load(ctx context.Context, archive io.Reader) ([]*image.Image, error)
	// SetPinned sets whether the kubelet has to keep an image.
	SetPinned(ref string, pinned bool) error
	// Pulls returns the pulls in progress.
	Pulls() []image.PullStatus
}

// Recovery is what the service needs of the comparison of records and node.
type Recovery interface {
	// Check returns the differences. The error joins what could not be looked at.
	Check(ctx context.Context) ([]recovery.Difference, error)
	// Repair retries debts and removes leftovers that are certain.
	Repair(ctx context.Context) error
	// RemoveAlive kills and removes the pod or container with this ID, which is alive and has no record.
	RemoveAlive(ctx context.Context, id string) error
}

// Server serves pinfold.v1.NodeService. Its errors become gRPC's in the interceptors of package cri.
type Server struct {
	pinfoldv1.UnimplementedNodeServiceServer
	Images   Images
	Recovery Recovery
	Engine   *steps.Engine
}

// LoadImage reads an archive in pieces and answers with the images in it.
func (s *Server) LoadImage(stream grpc.ClientStreamingServer[pinfoldv1.LoadImageRequest, pinfoldv1.LoadImageResponse]) error {
	images, err := s.Images.Load(stream.Context(), &chunks{stream: stream})
	if err != nil {
		return err
	}
	answer := &pinfoldv1.LoadImageResponse{}
	for _, img := range images {
		answer.Images = append(answer.Images, &pinfoldv1.LoadedImage{Id: img.ID, Tags: img.Tags})
	}
	return stream.SendAndClose(answer)
}

// chunks reads the stream's messages as one byte stream.
type chunks struct {
	stream grpc.ClientStreamingServer[pinfoldv1.LoadImageRequest, pinfoldv1.LoadImageResponse]
	rest   []byte
}

// Read implements io.Reader.
func (c *chunks) Read(b []byte) (int, error) {
	for len(c.rest) == 0 {
		m, err := c.stream.Recv()
		if err != nil {
			return 0, err // io.EOF at the end
		}
		c.rest = m.GetChunk()
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// PinImage keeps an image from the kubelet's garbage collection.
func (s *Server) PinImage(_ context.Context, req *pinfoldv1.PinImageRequest) (*pinfoldv1.PinImageResponse, error) {
	return &pinfoldv1.PinImageResponse{}, s.Images.SetPinned(req.GetImage(), true)
}

// UnpinImage no longer keeps it.
func (s *Server) UnpinImage(_ context.Context, req *pinfoldv1.UnpinImageRequest) (*pinfoldv1.UnpinImageResponse, error) {
	return &pinfoldv1.UnpinImageResponse{}, s.Images.SetPinned(req.GetImage(), false)
}

// ListOperations returns the operations in progress and then the pulls, as operations with one step.
func (s *Server) ListOperations(_ context.Context, req *pinfoldv1.ListOperationsRequest) (*pinfoldv1.ListOperationsResponse, error) {
	answer := &pinfoldv1.ListOperationsResponse{}
	for _, f := range s.Engine.Flights(req.GetObject()) {
		answer.Operations = append(answer.Operations, operation(f))
	}
	for _, pull := range s.Images.Pulls() {
		if op := pulling(pull); strings.Contains(op.GetObject(), req.GetObject()) {
			answer.Operations = append(answer.Operations, op)
		}
	}
	return answer, nil
}

func operation(f steps.Flight) *pinfoldv1.Operation {
	op := &pinfoldv1.Operation{
		Name: f.Operation, Object: text(f.Object), Step: f.Step,
		Began: timestamppb.New(f.Began), StepBegan: timestamppb.New(f.StepBegan),
	}
	for _, d := range f.Done {
		op.Done = append(op.Done, &pinfoldv1.Step{
			Name: d.Step, Began: timestamppb.New(d.Start), Took: durationpb.New(d.Took), Error: text(d.Error),
		})
	}
	return op
}

func pulling(pull image.PullStatus) *pinfoldv1.Operation {
	step := "look up"
	if pull.Layers > 0 {
		step = fmt.Sprintf("%d of %d bytes, %d of %d layers unpacked", pull.Bytes, pull.TotalBytes, pull.LayersDone, pull.Layers)
	}
	began := timestamppb.New(pull.Began)
	return &pinfoldv1.Operation{
		Name: "PullImage", Object: text("image " + pull.Image), Step: step, Began: began, StepBegan: began,
		Pull: &pinfoldv1.PullProgress{Bytes: pull.Bytes, TotalBytes: pull.TotalBytes, LayersDone: int32(pull.LayersDone), Layers: int32(pull.Layers)},
	}
}

// Check repairs what it is asked to, then compares records and node. If something fails, the answer has the error and
// the differences that were found.
func (s *Server) Check(ctx context.Context, req *pinfoldv1.CheckRequest) (*pinfoldv1.CheckResponse, error) {
	var failed error
	switch {
	case req.GetRepair() && req.GetRemove() != "":
		return nil, fmt.Errorf("check: repair and remove cannot go together: %w", errdefs.ErrInvalidArgument)
	case req.GetRepair():
		failed = s.Recovery.Repair(ctx)
	case req.GetRemove() != "":
		failed = s.Recovery.RemoveAlive(ctx, req.GetRemove())
	}
	found, err := s.Recovery.Check(ctx)
	answer := &pinfoldv1.CheckResponse{}
	for _, d := range found {
		answer.Differences = append(answer.Differences, &pinfoldv1.Difference{
			Object: text(d.Object), Finding: text(d.Finding), Action: d.Action,
		})
	}
	if err := errors.Join(failed, err); err != nil {
		answer.Failed = text(err.Error())
	}
	return answer, nil
}

// text makes a string fit for a message. What it holds may be the name of a file, in any bytes.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
