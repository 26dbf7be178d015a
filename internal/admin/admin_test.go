package admin

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	pinfoldv1 "github.com/pinfold-run/pinfold/api/pinfold/v1"
	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/pod/recovery"
	"github.com/pinfold-run/pinfold/internal/steps"
)

// node answers as the test says, and notes what it was asked.
type node struct {
	asked  []string
	failed error
	found  []recovery.Difference
	pulls  []image.PullStatus
}

func (n *node) Load(_ context.Context, archive io.Reader) ([]*image.Image, error) {
	if n.failed != nil {
		return nil, n.failed // before the archive has ended
	}
	content, err := io.ReadAll(archive)
	return []*image.Image{{ID: "sha256:4f1c", Tags: []string{string(content)}}}, err
}

func (n *node) SetPinned(ref string, pinned bool) error {
	n.asked = append(n.asked, map[bool]string{true: "pin ", false: "unpin "}[pinned]+ref)
	return n.failed
}

func (n *node) Pulls() []image.PullStatus { return n.pulls }

func (n *node) Check(context.Context) ([]recovery.Difference, error) {
	n.asked = append(n.asked, "check")
	return n.found, errors.New("no disk")
}

func (n *node) Repair(context.Context) error {
	n.asked = append(n.asked, "repair")
	return n.failed
}

func (n *node) RemoveAlive(_ context.Context, id string) error {
	n.asked = append(n.asked, "remove "+id)
	return n.failed
}

// serve returns a client of a server on a socket.
func serve(t *testing.T, n *node, engine *steps.Engine) pinfoldv1.NodeServiceClient {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pinfoldv1.RegisterNodeServiceServer(server, &Server{Images: n, Recovery: n, Engine: engine})
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return pinfoldv1.NewNodeServiceClient(conn)
}

func TestAnArchiveIsReadFromItsChunks(t *testing.T) {
	client := serve(t, &node{}, nil)
	stream, err := client.LoadImage(t.Context())
	for _, chunk := range []string{"ab", "", "c"} {
		err = errors.Join(err, stream.Send(&pinfoldv1.LoadImageRequest{Chunk: []byte(chunk)}))
	}
	if err != nil {
		t.Fatal(err)
	}
	answer, err := stream.CloseAndRecv()
	want := &pinfoldv1.LoadImageResponse{Images: []*pinfoldv1.LoadedImage{{Id: "sha256:4f1c", Tags: []string{"abc"}}}}
	if err != nil || !proto.Equal(answer, want) {
		t.Errorf("%v, %v; want %v", answer, err, want)
	}
}

func TestAnArchiveThatIsRefusedEarlyIsAnError(t *testing.T) {
	stream, err := serve(t, &node{failed: errors.New("no archive")}, nil).LoadImage(t.Context())
	for err == nil {
		err = stream.Send(&pinfoldv1.LoadImageRequest{Chunk: make([]byte, 1<<20)})
	}
	if _, answer := stream.CloseAndRecv(); answer == nil || !strings.Contains(answer.Error(), "no archive") {
		t.Errorf("%v (sent until %v)", answer, err)
	}
}

func TestACheckMendsFirstAndTellsWhatItFoundAndWhatFailed(t *testing.T) {
	for _, c := range []struct {
		req   *pinfoldv1.CheckRequest
		asked string
	}{
		{&pinfoldv1.CheckRequest{}, "check"},
		{&pinfoldv1.CheckRequest{Repair: true}, "repair, check"},
		{&pinfoldv1.CheckRequest{Remove: "4f1c"}, "remove 4f1c, check"},
	} {
		n := &node{failed: errors.New("no hand"), found: []recovery.Difference{{Object: "file \xff", Finding: "f", Action: "a"}}}
		answer, err := serve(t, n, nil).Check(t.Context(), c.req)
		if err != nil || strings.Join(n.asked, ", ") != c.asked {
			t.Errorf("%v: %v, asked for %q", c.req, err, n.asked)
			continue
		}
		d := answer.GetDifferences()
		if len(d) != 1 || d[0].GetObject() != "file \uFFFD" || d[0].GetFinding() != "f" || d[0].GetAction() != "a" {
			t.Errorf("%v: %v", c.req, d)
		}
		if mended := len(n.asked) > 1; !strings.Contains(answer.GetFailed(), "no disk") || strings.Contains(answer.GetFailed(), "no hand") != mended {
			t.Errorf("%v: failed: %q", c.req, answer.GetFailed())
		}
	}
	n := &node{}
	if _, err := serve(t, n, nil).Check(t.Context(), &pinfoldv1.CheckRequest{Repair: true, Remove: "x"}); err == nil || len(n.asked) > 0 {
		t.Errorf("both at once: %v, asked for %q", err, n.asked)
	}
}

func TestPinsReachTheImage(t *testing.T) {
	n := &node{}
	client := serve(t, n, nil)
	_, err := client.PinImage(t.Context(), &pinfoldv1.PinImageRequest{Image: "a:1"})
	_, err2 := client.UnpinImage(t.Context(), &pinfoldv1.UnpinImageRequest{Image: "b:1"})
	if got := strings.Join(n.asked, ", "); errors.Join(err, err2) != nil || got != "pin a:1, unpin b:1" {
		t.Errorf("%v, %v; asked for %q", err, err2, got)
	}
	n.failed = errors.New("no such image")
	if _, err := client.PinImage(t.Context(), &pinfoldv1.PinImageRequest{Image: "c"}); err == nil {
		t.Error("an image that is not there is pinned")
	}
}

func TestOperationsAreListedBeforePullsAndByTheirObject(t *testing.T) {
	began := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	n := &node{pulls: []image.PullStatus{
		{Image: "a:1", Began: began},
		{Image: "b:1", Began: began, Bytes: 1, TotalBytes: 2, LayersDone: 3, Layers: 4},
	}}
	engine := steps.NewEngine()
	client := serve(t, n, engine)
	var listed *pinfoldv1.ListOperationsResponse
	var failed error
	ask := func(object string) {
		listed, failed = client.ListOperations(t.Context(), &pinfoldv1.ListOperationsRequest{Object: object})
	}
	nothing := func(context.Context) error { return nil }
	err := engine.Run(t.Context(), steps.Operation{Name: "RunPodSandbox", Object: "sandbox a", Steps: []steps.Step{
		{Name: "network", Do: nothing},
		{Name: "volumes", Do: func(context.Context) error { ask(""); return nil }},
	}})
	op := listed.GetOperations()
	if err != nil || failed != nil || len(op) != 3 || op[1].GetObject() != "image a:1" || op[1].GetStep() != "look up" {
		t.Fatalf("%v, %v, %v", err, failed, listed)
	}
	if first := op[0]; first.GetName() != "RunPodSandbox" || first.GetObject() != "sandbox a" || first.GetStep() != "volumes" ||
		len(first.GetDone()) != 1 || first.GetDone()[0].GetName() != "network" || first.GetStepBegan().AsTime().Before(first.GetBegan().AsTime()) {
		t.Errorf("the operation in progress: %v", first)
	}
	ask("b:")
	op = listed.GetOperations()
	if failed != nil || len(op) != 1 || op[0].GetName() != "PullImage" || op[0].GetObject() != "image b:1" ||
		op[0].GetStep() != "1 of 2 bytes, 3 of 4 layers unpacked" || !op[0].GetBegan().AsTime().Equal(began) ||
		!proto.Equal(op[0].GetPull(), &pinfoldv1.PullProgress{Bytes: 1, TotalBytes: 2, LayersDone: 3, Layers: 4}) {
		t.Errorf("the pull of b: %v, %v", listed, failed)
	}
}
