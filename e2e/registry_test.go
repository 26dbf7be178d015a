package e2e

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/testimage"
	"github.com/pinfold-run/pinfold/internal/testregistry"
)

const secret = "correct-horse-battery"

// startRegistry serves a registry on loopback that has busybox:1 and asks for user and secret.
func startRegistry(t *testing.T) (host string) {
	t.Helper()
	inner := testregistry.New(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, ok := r.BasicAuth(); !ok || password != secret {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	host = strings.TrimPrefix(server.URL, "http://")
	push(t, host+"/library/busybox:1")
	return host
}

func push(t *testing.T, ref string) {
	t.Helper()
	var archive bytes.Buffer
	if err := testimage.Write(&archive, testimage.Options{Name: ref, Format: testimage.OCI}); err != nil {
		t.Fatal(err)
	}
	host, rest, _ := strings.Cut(ref, "/")
	name, tag, _ := strings.Cut(rest, ":")
	repository := testregistry.Repository{Base: "http://" + host, Name: name, User: "user", Password: secret}
	blobs := map[string][]byte{}
	for r := tar.NewReader(&archive); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if blobs[header.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(header.Name, "blobs/") && header.Typeflag == tar.TypeReg {
			repository.PutBlob(t, blobs[header.Name])
		}
	}
	var index imagespec.Index
	if err := json.Unmarshal(blobs["index.json"], &index); err != nil {
		t.Fatal(err)
	}
	manifest := index.Manifests[0]
	repository.PutManifest(t, tag, manifest.MediaType, blobs["blobs/sha256/"+manifest.Digest.Encoded()])
}

func (n *node) pull(ref, password string) (string, error) {
	resp, err := n.images.PullImage(n.ctx(), &runtimeapi.PullImageRequest{
		Image: &runtimeapi.ImageSpec{Image: ref}, Auth: &runtimeapi.AuthConfig{Username: "user", Password: password},
	})
	return resp.GetImageRef(), err
}

func TestAnImageIsPulledFromAnAuthenticatedRegistryAndRuns(t *testing.T) {
	host := startRegistry(t)
	n := newNode(t)
	n.launch()
	ref := host + "/library/busybox:1"

	if _, err := n.pull(ref, "wrong-password"); status.Code(err) != codes.Unauthenticated || strings.Contains(err.Error(), "wrong-password") {
		t.Errorf("with a wrong password: %v", err)
	}
	if _, err := n.pull(host+"/library/nosuch:1", secret); status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "nosuch") {
		t.Errorf("an image that the registry does not have: %v", err)
	}
	id, err := n.pull(ref, secret)
	if err != nil {
		t.Fatal(err)
	}
	found, err := n.images.ImageStatus(n.ctx(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	if err != nil || found.GetImage().GetId() != id || found.GetImage().GetSize() == 0 {
		t.Errorf("status: %v %v", found, err)
	}
	n.runOnce("from-registry", ref)

	// A mirror in hosts.toml for a registry that does not exist.
	dir := n.path("certs.d", "registry.example")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	n.write(filepath.Join("certs.d", "registry.example", "hosts.toml"), "server = \"http://127.0.0.1:1\"\n[host.\"http://"+host+"\"]\n  capabilities = [\"pull\", \"resolve\"]\n")
	if mirrored, err := n.pull("registry.example/library/busybox:1", secret); err != nil || mirrored != id {
		t.Errorf("by a mirror: %v %v, want %v", mirrored, err, id)
	}

	usage, err := n.images.ImageFsInfo(n.ctx(), &runtimeapi.ImageFsInfoRequest{})
	if err != nil || len(usage.GetImageFilesystems()) != 1 || usage.ImageFilesystems[0].GetUsedBytes().GetValue() == 0 {
		t.Errorf("image file system: %v %v", usage, err)
	}
	if strings.Contains(n.log.String(), secret) {
		t.Error("the credential is in the log")
	}
}

// runOnce runs a container of an image to its end and expects its output.
func (n *node) runOnce(pod, image string) {
	n.t.Helper()
	p := newPlayOn(n)
	p.must(p.runPod([]string{pod, "userns"}))
	config := containerConfig("c", "sh", "-c", "echo from the image; exit 5")
	config.Image.Image = image
	resp, err := n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: p.pods[pod], Config: config})
	if err != nil {
		n.t.Fatal(err)
	}
	p.containers["c"], p.logOf["c"] = resp.ContainerId, n.path("logs", pod, "c.log")
	p.must(p.startContainer([]string{"c"}))
	if state := p.must(p.wait([]string{"c"})); state != "exited, exit code 5, Error" {
		n.t.Errorf("the container %s", state)
	}
	if text := p.must(p.logs([]string{"c"})); text != "stdout F from the image\n" {
		n.t.Errorf("its log is %q", text)
	}
}

// must fails the test on an error.
func (p *play) must(out string, err error) string {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}
