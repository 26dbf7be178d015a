package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/testregistry"
	"github.com/pinfold-run/pinfold/internal/testroot"
)

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// hub is a real registry on loopback. Tests add faults to it and count its requests.
type hub struct {
	*httptest.Server
	mu       sync.Mutex
	requests []string
	// fault handles a request instead of the registry if it returns true.
	fault func(w http.ResponseWriter, r *http.Request) bool
}

func newHub(t *testing.T) *hub {
	t.Helper()
	testroot.Need(t)
	h := &hub{}
	store := testregistry.New(t)
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.requests = append(h.requests, r.Method+" "+r.URL.Path)
		fault := h.fault
		h.mu.Unlock()
		if fault != nil && fault(w, r) {
			return
		}
		store.ServeHTTP(w, r)
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *hub) host() string { return strings.TrimPrefix(h.URL, "http://") }

func (h *hub) setFault(f func(w http.ResponseWriter, r *http.Request) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fault = f
}

// count is how many requests since the last forget began with prefix ("GET /v2/app/blobs/").
func (h *hub) count(prefix string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(slices.DeleteFunc(slices.Clone(h.requests), func(r string) bool { return !strings.HasPrefix(r, prefix) }))
}

func (h *hub) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.requests = nil
}

// push stores an image and returns its full reference.
func (h *hub) push(t *testing.T, repo string, img builtImage) string {
	t.Helper()
	name, tag, _ := strings.Cut(repo, ":")
	h.put(t, name, img)
	h.repository(name).PutManifest(t, tag, dockerManifest, img.manifest(t))
	h.forget()
	return h.host() + "/" + repo
}

func (h *hub) pushIndex(t *testing.T, repo string, idx builtIndex) string {
	t.Helper()
	name, tag, _ := strings.Cut(repo, ":")
	for _, img := range idx.images {
		h.put(t, name, img)
		h.repository(name).PutManifest(t, img.digest(t).String(), dockerManifest, img.manifest(t))
	}
	h.repository(name).PutManifest(t, tag, imagespec.MediaTypeImageIndex, idx.manifest(t))
	h.forget()
	return h.host() + "/" + repo
}

func (h *hub) repository(name string) testregistry.Repository {
	return testregistry.Repository{Base: h.URL, Name: name}
}

// put uploads the parts of an image.
func (h *hub) put(t *testing.T, name string, img builtImage) {
	t.Helper()
	h.repository(name).PutBlob(t, img.config)
	for _, l := range img.layers {
		h.repository(name).PutBlob(t, l.blob)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// file is one entry of a layer; the zero type is a regular file.
type file struct {
	tar.Header
	body string
}

func reg(path, body string) file { return file{tar.Header{Name: path, Mode: 0o644}, body} }
func dir(path string, mode int64) file {
	return file{tar.Header{Name: path + "/", Mode: mode, Typeflag: tar.TypeDir}, ""}
}

func symlink(path, target string) file {
	return file{tar.Header{Name: path, Linkname: target, Typeflag: tar.TypeSymlink, Mode: 0o777}, ""}
}

func archiveOf(t *testing.T, files ...file) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		f.Size = int64(len(f.body))
		if f.Typeflag == 0 {
			f.Typeflag = tar.TypeReg
		}
		must(t, w.WriteHeader(&f.Header))
		_, err := w.Write([]byte(f.body))
		must(t, err)
	}
	must(t, w.Close())
	return buf.Bytes()
}

func idOf(t *testing.T, img builtImage) string {
	t.Helper()
	return digest.FromBytes(img.config).String()
}

// logBuffer collects a store's log.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func newLog() (*logBuffer, *slog.Logger) {
	buf := &logBuffer{}
	return buf, slog.New(slog.NewTextHandler(buf, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// open opens a store whose holds are known, closed at the end of the test.
func open(t *testing.T, cfg image.Config) *image.Store {
	t.Helper()
	s := openWithUnknownHolds(t, cfg)
	must(t, s.RemoveUnused(t.Context()))
	return s
}

func openWithUnknownHolds(t *testing.T, cfg image.Config) *image.Store {
	t.Helper()
	testroot.Need(t)
	if cfg.Root == "" {
		cfg.Root = t.TempDir()
	}
	s, err := image.Open(t.Context(), cfg)
	must(t, err)
	t.Cleanup(s.Close)
	return s
}

func pull(t *testing.T, s *image.Store, ref string) *image.Image {
	t.Helper()
	img, err := s.Pull(t.Context(), ref, nil)
	must(t, err)
	return img
}

// trees are the directories of an image's layers, topmost first.
func trees(t *testing.T, s *image.Store, id string) []string {
	t.Helper()
	dirs, _, err := s.Hold(id, t.Name())
	must(t, err)
	s.Release(id, t.Name())
	return dirs
}

// mountAll mounts an image with overlayfs, as a container would see it.
func mountAll(t *testing.T, dirs []string) string {
	t.Helper()
	at := t.TempDir()
	if len(dirs) == 1 {
		dirs = append(dirs, t.TempDir()) // overlay without an upper directory needs two
	}
	must(t, unix.Mount("overlay", at, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(dirs, ":")))
	t.Cleanup(func() { must(t, unix.Unmount(at, unix.MNT_DETACH)) })
	return at
}

// names lists the directory's entries.
func names(t *testing.T, path string) []string {
	t.Helper()
	entries, err := os.ReadDir(path)
	if os.IsNotExist(err) {
		return nil
	}
	must(t, err)
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// inventory is what a store has on disk, by kind.
func inventory(t *testing.T, root string) map[string]int {
	t.Helper()
	temporary := 0
	for _, d := range []string{"layers", "records"} {
		for _, n := range names(t, filepath.Join(root, d)) {
			if strings.HasPrefix(n, ".tmp-") {
				temporary++
			}
		}
	}
	return map[string]int{
		"layers":    len(names(t, filepath.Join(root, "layers"))) - temporary,
		"records":   len(names(t, filepath.Join(root, "records"))),
		"blobs":     len(names(t, filepath.Join(root, "content/blobs/sha256"))),
		"ingests":   len(names(t, filepath.Join(root, "content/ingest"))),
		"temporary": temporary,
	}
}

func expectInventory(t *testing.T, root string, want map[string]int) {
	t.Helper()
	got := inventory(t, root)
	for _, k := range []string{"layers", "records", "blobs", "ingests", "temporary"} {
		if got[k] != want[k] {
			t.Errorf("%s on disk: %d, want %d (all: %v)", k, got[k], want[k], got)
		}
	}
}

// expectError checks an error's class and that its text has all parts.
func expectError(t *testing.T, err error, class func(error) bool, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	t.Log(err)
	if !class(err) {
		t.Errorf("wrong class of error: %v", err)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error does not say %q: %v", p, err)
		}
	}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// waitFor polls for a condition without an event.
func waitFor(t *testing.T, met func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !met(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("does not come")
		}
	}
}

func sprint(v any) string { return fmt.Sprint(v) }

func cancelled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
