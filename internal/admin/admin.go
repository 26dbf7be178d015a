// Package admin is the gRPC service pinfold.v1.Node: what Pinfold's own command asks of the daemon
// beyond CRI, over the same socket. Messages are the well-known wrapper types. Structured answers
// are JSON.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/pinfold-run/pinfold/internal/steps"
)

const (
	serviceName = "pinfold.v1.Node"
	loadImage   = "LoadImage"
	why         = "Why"
	check       = "Check"
	pinImage    = "PinImage"
	unpinImage  = "UnpinImage"
)

// Server serves these calls.
type Server struct {
	// Load stores the images of an archive.
	Load   func(ctx context.Context, archive io.Reader) ([]Loaded, error)
	Engine *steps.Engine
	// Pulls are the pulls of images in progress, in the form of operations.
	Pulls func() []steps.Flight
	// Pin sets whether the kubelet has to keep an image.
	Pin func(image string, pinned bool) error
	// Check repairs what it is asked to, then compares records with the node.
	Check func(ctx context.Context, mend Mend) Report
	// Translate makes a gRPC error of an error.
	Translate func(error) error
}

// Loaded is one image of an archive.
type Loaded struct {
	ID   string   `json:"id"`
	Tags []string `json:"tags"`
}

// Mend says what a check repairs first.
type Mend struct {
	// Repair retries debts and removes leftovers that are certain.
	Repair bool
	// Remove kills and removes the pod or container with this ID, which is alive and has no record.
	Remove string
}

// Report is what a check found. Failed says what could not be checked, "" if nothing.
type Report struct {
	Differences []Difference `json:"differences"`
	Failed      string       `json:"failed,omitempty"`
}

// Difference is one difference between the records and the node: the object, the finding, and the
// action that follows.
type Difference struct {
	Object  string `json:"object"`
	Finding string `json:"finding"`
	Action  string `json:"action"`
}

type service interface {
	loadImage(stream grpc.ServerStream) error
	ask(ctx context.Context, method, argument string) (string, error)
}

// Register adds the service to a gRPC server.
func Register(to *grpc.Server, s *Server) {
	to.RegisterService(&grpc.ServiceDesc{
		ServiceName: serviceName,
		HandlerType: (*service)(nil),
		Methods:     methods(why, check, pinImage, unpinImage),
		Streams:     []grpc.StreamDesc{{StreamName: loadImage, Handler: handleLoad, ClientStreams: true}},
	}, s)
}

func methods(names ...string) []grpc.MethodDesc {
	list := make([]grpc.MethodDesc, 0, len(names))
	for _, name := range names {
		list = append(list, grpc.MethodDesc{MethodName: name, Handler: handler(name)})
	}
	return list
}

func handleLoad(srv any, stream grpc.ServerStream) error { return srv.(service).loadImage(stream) }

// handler serves a method that takes a string and returns JSON.
func handler(method string) grpc.MethodHandler {
	return func(srv any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
		in := &wrapperspb.StringValue{}
		if err := decode(in); err != nil {
			return nil, err
		}
		call := func(ctx context.Context, req any) (any, error) {
			out, err := srv.(service).ask(ctx, method, req.(*wrapperspb.StringValue).GetValue())
			return wrapperspb.String(out), err
		}
		if intercept == nil {
			return call(ctx, in)
		}
		return intercept(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/" + serviceName + "/" + method}, call)
	}
}

// loadImage reads an archive in pieces and answers with the images in it.
func (s *Server) loadImage(stream grpc.ServerStream) error {
	loaded, err := s.Load(stream.Context(), &pieces{stream: stream})
	if err != nil {
		return s.Translate(err)
	}
	data, err := json.Marshal(loaded)
	if err != nil {
		return err
	}
	return stream.SendMsg(wrapperspb.String(string(data)))
}

// ask answers calls with a text. Why gets a part of a name and returns the operations and pulls in
// progress on matching objects. Check gets "", "repair" or "remove ID" and returns a Report.
// PinImage and UnpinImage return nothing.
func (s *Server) ask(ctx context.Context, method, argument string) (string, error) {
	var answer any
	switch method {
	case check:
		id, remove := strings.CutPrefix(argument, removeArgument)
		mend := Mend{Repair: argument == repairArgument}
		if remove {
			mend.Remove = id
		}
		answer = s.Check(ctx, mend)
	case pinImage, unpinImage:
		if err := s.Pin(argument, method == pinImage); err != nil {
			return "", err
		}
	default:
		answer = s.flights(argument)
	}
	data, err := json.Marshal(answer)
	return string(data), err
}

func (s *Server) flights(part string) []steps.Flight {
	found := s.Engine.Flights(part)
	for _, pull := range s.Pulls() {
		if strings.Contains(pull.Object, part) {
			found = append(found, pull)
		}
	}
	return found
}

const (
	repairArgument = "repair"
	removeArgument = "remove "
)

// pieces reads the messages of the stream as one byte stream.
type pieces struct {
	stream grpc.ServerStream
	rest   []byte
}

// Read implements io.Reader.
func (p *pieces) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		m := &wrapperspb.BytesValue{}
		if err := p.stream.RecvMsg(m); err != nil {
			return 0, err // io.EOF at the end
		}
		p.rest = m.GetValue()
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// pieceSize is how much of an archive one message carries, in bytes.
const pieceSize = 256 << 10

// LoadImage sends an archive to the daemon and returns the images in it.
func LoadImage(ctx context.Context, conn grpc.ClientConnInterface, archive io.Reader) ([]Loaded, error) {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, "/"+serviceName+"/"+loadImage)
	if err != nil {
		return nil, err
	}
	if err := send(stream, archive); err != nil {
		return nil, err
	}
	answer := &wrapperspb.StringValue{}
	if err := stream.RecvMsg(answer); err != nil {
		return nil, err
	}
	var loaded []Loaded
	err = json.Unmarshal([]byte(answer.GetValue()), &loaded)
	return loaded, err
}

func send(stream grpc.ClientStream, archive io.Reader) error {
	buffer := make([]byte, pieceSize)
	for {
		n, err := archive.Read(buffer)
		if n > 0 {
			// io.EOF means that the server has answered early. RecvMsg returns the reason.
			if err := stream.SendMsg(wrapperspb.Bytes(buffer[:n])); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return stream.CloseSend()
		}
		if err != nil {
			return err
		}
	}
}

// Why asks which step the operations are in, on objects whose name contains the given text.
func Why(ctx context.Context, conn grpc.ClientConnInterface, object string) ([]steps.Flight, error) {
	var flights []steps.Flight
	err := invoke(ctx, conn, why, object, &flights)
	return flights, err
}

// Check repairs what it is asked to, then compares records and node.
func Check(ctx context.Context, conn grpc.ClientConnInterface, mend Mend) (Report, error) {
	argument := ""
	switch {
	case mend.Remove != "":
		argument = removeArgument + mend.Remove
	case mend.Repair:
		argument = repairArgument
	}
	var report Report
	err := invoke(ctx, conn, check, argument, &report)
	return report, err
}

// PinImage sets whether the kubelet has to keep an image. Garbage collection keeps it then;
// RemoveImage still removes it.
func PinImage(ctx context.Context, conn grpc.ClientConnInterface, image string, pinned bool) error {
	method := unpinImage
	if pinned {
		method = pinImage
	}
	return invoke(ctx, conn, method, image, new(any))
}

func invoke(ctx context.Context, conn grpc.ClientConnInterface, method, argument string, into any) error {
	answer := &wrapperspb.StringValue{}
	if err := conn.Invoke(ctx, "/"+serviceName+"/"+method, wrapperspb.String(argument), answer); err != nil {
		return err
	}
	return json.Unmarshal([]byte(answer.GetValue()), into)
}
