package pod

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/record"
)

// long: the whole life, in order.
func TestTheLogTellsTheLifeOfAPodAndItsContainer(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "pods", "p1", "containers"), 0o700); err != nil {
		t.Fatal(err)
	}
	store, err := record.Open(dir, "boot")
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	book := NewBook()
	r := NewRecords(store, NewEvents(book), slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == "took" || a.Key == "lasted" && a.Value.Duration() < time.Second {
				return slog.Attr{}
			}
			return a
		},
	})))
	box := NewSandbox(&SandboxRecord{ID: "p1", State: Creating, Handler: "runc", Created: time.Now(), Config: ocispec.ParsePod(&runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "web\nlevel=ERROR", Namespace: "shop"},
	})})
	book.AddSandbox(box)
	change := func(change func(*ContainerRecord), c *Container) {
		t.Helper()
		if err := r.ChangeContainer(c, change); err != nil {
			t.Fatal(err)
		}
	}
	is := func(state State) {
		t.Helper()
		if err := r.ChangeSandbox(box, func(s *SandboxRecord) { s.State, s.Created = state, time.Now() }); err != nil {
			t.Fatal(err)
		}
	}
	is(Ready)
	c := NewContainer(&ContainerRecord{ID: "c1", Sandbox: "p1", State: Creating, Config: ContainerConfig{ContainerConfig: &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "nginx", Attempt: 1}, Image: &runtimeapi.ImageSpec{UserSpecifiedImage: "nginx:1"},
	}}})
	book.AddContainer(c)
	change(func(r *ContainerRecord) { r.State = Created }, c)
	at := time.Now()
	change(func(r *ContainerRecord) { r.State, r.Times.Started, r.Process.PID = Running, at, 7 }, c)
	change(func(r *ContainerRecord) {
		r.State, r.Times.Finished, r.Exit = Exited, at.Add(time.Second), ExitStatus{Code: 137, Signal: 9, Reason: "OOMKilled"}
	}, c)
	change(func(r *ContainerRecord) { r.State = Removing }, c)
	book.RemoveContainer(c.ID)
	r.ContainerRemoved(c)
	is(Stopped)
	book.RemoveSandbox(box.ID)
	r.SandboxRemoved(box)
	pod := `namespace=shop pod="web\nlevel=ERROR" pod_id=p1`
	container := pod + ` container=nginx attempt=1 container_id=c1`
	want := strings.Join([]string{
		`level=INFO msg="pod started" ` + pod + ` handler=runc`,
		`level=INFO msg="container made" ` + container + ` image=nginx:1`,
		`level=INFO msg="container started" ` + container + ` pid=7`,
		`level=INFO msg="container ended" ` + container + ` reason=OOMKilled exit_code=137 signal=9 lasted=1s`,
		`level=INFO msg="container removed" ` + container,
		`level=INFO msg="pod stopped" ` + pod,
		`level=INFO msg="pod removed" ` + pod,
	}, "\n")
	if got := strings.TrimSpace(text.String()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
