package image_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/image/registry"
)

func TestPulledImageIsListedUnpackedAndFoundByEveryName(t *testing.T) {
	h := newHub(t)
	src := imageOf(t, "a", layerOf(t, reg("etc/hello", "world")), layerOf(t, reg("bin/sh", "#!")))
	ref := h.push(t, "app:1", src)
	digest := src.digest(t)
	root := t.TempDir()
	s := open(t, image.Config{Root: root})

	img := pull(t, s, ref)
	equal(t, "ID", img.ID, idOf(t, src))
	equal(t, "tags", sprint(img.Tags), sprint([]string{ref}))
	equal(t, "digests", sprint(img.Digests), sprint([]string{h.host() + "/app@" + digest.String()}))
	if img.Size == 0 || img.Config.OS != "linux" || len(img.Chain) != 2 {
		t.Errorf("image %+v", img)
	}
	uid, user := img.User()
	if uid == nil || *uid != 1000 || user != "" {
		t.Errorf("user %v %q", uid, user)
	}
	hex := strings.TrimPrefix(img.ID, "sha256:")
	for _, name := range []string{ref, img.Digests[0], img.ID, hex, hex[:12], "sha256:" + hex[:20]} {
		if got, ok := s.Resolve(name); !ok || got.ID != img.ID {
			t.Errorf("Resolve(%s): %v", name, ok)
		}
	}
	for _, name := range []string{h.host() + "/app", hex[:11], "busybox", "", "sha256:"} {
		if _, ok := s.Resolve(name); ok {
			t.Errorf("Resolve(%s) found something", name)
		}
	}
	at := mountAll(t, trees(t, s, img.ID))
	got, err := os.ReadFile(filepath.Join(at, "etc/hello"))
	if err != nil || string(got) != "world" {
		t.Errorf("file of the lower layer: %q, %v", got, err)
	}
	// Compressed layers are removed; manifest and configuration stay.
	expectInventory(t, root, map[string]int{"layers": 2, "records": 1, "blobs": 2})
	size, inodes := s.Usage()
	if size < img.Size || inodes < 6 {
		t.Errorf("usage %d bytes, %d inodes", size, inodes)
	}
}

func TestPullByTagAndByDigestIsTheSameImage(t *testing.T) {
	h := newHub(t)
	src := imageOf(t, "a", layerOf(t, reg("a", "a")))
	ref := h.push(t, "app:1", src)
	digest := src.digest(t)
	s := open(t, image.Config{})
	byDigest := pull(t, s, h.host()+"/app@"+digest.String())
	equal(t, "tags after pull by digest", len(byDigest.Tags), 0)
	h.forget()
	byTag := pull(t, s, ref)
	equal(t, "ID", byTag.ID, byDigest.ID)
	equal(t, "digests", sprint(byTag.Digests), sprint(byDigest.Digests))
	equal(t, "images", len(s.List()), 1)
	equal(t, "contents fetched again", h.count("GET"), 0)
}

func TestIndexGivesTheImageOfThisPlatform(t *testing.T) {
	h := newHub(t)
	mine := imageOf(t, "mine", layerOf(t, reg("mine", "")))
	other := imageOf(t, "other", layerOf(t, reg("other", "")))
	idx := builtIndex{[]builtImage{other, mine, other}, []*imagespec.Platform{
		{OS: "linux", Architecture: "s390x"}, {OS: "linux", Architecture: runtime.GOARCH}, {OS: "unknown", Architecture: "unknown"},
	}}
	ref := h.pushIndex(t, "multi:1", idx)
	digest := digest.FromBytes(idx.manifest(t))
	s := open(t, image.Config{})
	img := pull(t, s, ref)
	equal(t, "ID", img.ID, idOf(t, mine))
	equal(t, "digests", sprint(img.Digests), sprint([]string{h.host() + "/multi@" + digest.String()}))
}

func TestIndexWithoutThisPlatformNamesThoseItHas(t *testing.T) {
	h := newHub(t)
	idx := builtIndex{[]builtImage{imageOf(t, "x", layerOf(t, reg("x", "")))}, []*imagespec.Platform{{OS: "linux", Architecture: "s390x"}}}
	ref := h.pushIndex(t, "multi:1", idx)
	s := open(t, image.Config{})
	_, err := s.Pull(t.Context(), ref, nil)
	expectError(t, err, errdefs.IsNotFound, ref, "linux/s390x", "no image for platform")
	equal(t, "images", len(s.List()), 0)
}

func TestTagMovesToTheImagePulledLast(t *testing.T) {
	h := newHub(t)
	root := t.TempDir()
	s := open(t, image.Config{Root: root})
	base := layerOf(t, reg("base", ""))
	ref := h.push(t, "app:1", imageOf(t, "one", base))
	one := pull(t, s, ref)
	h.push(t, "app:1", imageOf(t, "two", base))
	two := pull(t, s, ref)
	if one.ID == two.ID {
		t.Fatal("the images are the same")
	}
	check := func(s *image.Store) {
		t.Helper()
		if now, _ := s.Resolve(ref); now == nil || now.ID != two.ID {
			t.Errorf("the tag is of %v", now)
		}
		old, ok := s.Resolve(one.ID)
		if !ok || len(old.Tags) != 0 || len(old.Digests) != 1 {
			t.Errorf("the first image: %+v", old)
		}
	}
	check(s)
	equal(t, "tags of the value handed out before", len(one.Tags), 1)
	s.Close()
	check(open(t, image.Config{Root: root}))
}

func TestEqualPullsAtOnceAreOnePullThatSurvivesTheFirstCaller(t *testing.T) {
	h := newHub(t)
	l := layerOf(t, reg("a", "a"))
	ref := h.push(t, "app:1", imageOf(t, "a", l))
	gate := make(chan struct{})
	h.setFault(func(_ http.ResponseWriter, _ *http.Request) bool { <-gate; return false })
	s := open(t, image.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	first, others := make(chan error, 1), make(chan error, 20)
	go func() { _, err := s.Pull(ctx, ref, nil); first <- err }()
	waitFor(t, func() bool { return s.Waiters(ref) == 1 })
	for range cap(others) {
		go func() { _, err := s.Pull(t.Context(), ref, nil); others <- err }()
	}
	waitFor(t, func() bool { return s.Waiters(ref) == 1+cap(others) })
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the caller who gave up got %v", err)
	}
	close(gate)
	for range cap(others) {
		if err := <-others; err != nil {
			t.Error(err)
		}
	}
	digest := l.digest()
	equal(t, "times the tag was looked up", h.count("HEAD /v2/app/manifests/1"), 1)
	equal(t, "times the layer was fetched", h.count("GET /v2/app/blobs/"+digest.String()), 1)
	equal(t, "pulls left", s.Waiters(ref), 0)
}

func TestPullWithAnotherCredentialIsAnotherPull(t *testing.T) {
	h := newHub(t)
	ref := h.push(t, "app:1", imageOf(t, "a", layerOf(t, reg("a", "a"))))
	guard(h)
	guarded, gate := h.fault, make(chan struct{})
	h.setFault(func(w http.ResponseWriter, r *http.Request) bool { <-gate; return guarded(w, r) })
	s := open(t, image.Config{})
	good, bad := make(chan error, 1), make(chan error, 1)
	go func() { _, err := s.Pull(t.Context(), ref, &registry.Auth{Auth: basic}); good <- err }()
	waitFor(t, func() bool { return s.Waiters(ref) == 1 })
	go func() { _, err := s.Pull(t.Context(), ref, nil); bad <- err }()
	waitFor(t, func() bool { return s.Waiters(ref) == 2 })
	close(gate)
	must(t, <-good)
	expectError(t, <-bad, errdefs.IsUnauthorized)
}

func TestSharedLayersAreFetchedAndUnpackedOnce(t *testing.T) {
	h := newHub(t)
	base := layerOf(t, reg("base", strings.Repeat("b", 1<<20)))
	refs := []string{
		h.push(t, "a:1", imageOf(t, "a", base, layerOf(t, reg("a", "")))),
		h.push(t, "b:1", imageOf(t, "b", base, layerOf(t, reg("b", "")))),
		h.push(t, "c:1", imageOf(t, "c", base)),
	}
	h.forget()
	root := t.TempDir()
	s := open(t, image.Config{Root: root})
	var wg sync.WaitGroup
	for _, ref := range refs {
		wg.Go(func() {
			if _, err := s.Pull(t.Context(), ref, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	digest := base.digest()
	fetched := 0
	for _, repo := range []string{"a", "b", "c"} {
		fetched += h.count("GET /v2/" + repo + "/blobs/" + digest.String())
	}
	equal(t, "downloads of the shared layer", fetched, 1)
	expectInventory(t, root, map[string]int{"layers": 3, "records": 3, "blobs": 6})
	for _, ref := range refs {
		img, _ := s.Resolve(ref)
		must(t, s.Remove(t.Context(), img.ID))
	}
	expectInventory(t, root, map[string]int{})
}

func TestTheSameLayerTwiceInAnImage(t *testing.T) {
	h := newHub(t)
	l := layerOf(t, reg("a", "a"))
	root := t.TempDir()
	s := open(t, image.Config{Root: root})
	img := pull(t, s, h.push(t, "app:1", imageOf(t, "a", l, layerOf(t, reg("b", "b")), l)))
	equal(t, "layers", len(img.Chain), 3)
	expectInventory(t, root, map[string]int{"layers": 3, "records": 1, "blobs": 2})
}

func TestListDoesNotWaitForAPull(t *testing.T) {
	h := newHub(t)
	ref := h.push(t, "app:1", imageOf(t, "a", layerOf(t, reg("a", ""))))
	gate, entered := make(chan struct{}), make(chan struct{}, 10)
	h.setFault(func(_ http.ResponseWriter, _ *http.Request) bool { entered <- struct{}{}; <-gate; return false })
	s := open(t, image.Config{})
	done := make(chan error)
	go func() { _, err := s.Pull(t.Context(), ref, nil); done <- err }()
	<-entered
	equal(t, "images during the pull", len(s.List()), 0)
	close(gate)
	must(t, <-done)
	equal(t, "images after the pull", len(s.List()), 1)
}

func TestCancelledPullLeavesNothingListedAndCanBeRepeated(t *testing.T) {
	h := newHub(t)
	ref := h.push(t, "app:1", imageOf(t, "a", layerOf(t, reg("a", ""))))
	ctx, cancel := context.WithCancel(t.Context())
	h.setFault(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet {
			cancel()
			<-r.Context().Done()
			return true
		}
		return false
	})
	root := t.TempDir()
	s := open(t, image.Config{Root: root})
	_, err := s.Pull(ctx, ref, nil)
	expectError(t, err, errdefs.IsCanceled, ref)
	h.setFault(nil)
	pull(t, s, ref)
	expectInventory(t, root, map[string]int{"layers": 1, "records": 1, "blobs": 2})
	_, err = s.Pull(cancelled(), ref, nil)
	expectError(t, err, errdefs.IsCanceled)
}

func TestImagesThatCannotBeUsedAreRefused(t *testing.T) {
	h := newHub(t)
	s := open(t, image.Config{})
	ref := h.host() + "/app:1"
	for name, c := range map[string]struct{ manifest, says string }{
		"schema 1":  {`{"schemaVersion":1,"fsLayers":[]}`, "schema 1"},
		"ambiguous": {`{"schemaVersion":2,"manifests":[],"layers":[]}`, "both an image manifest and an index"},
		"nothing":   {`{"schemaVersion":2}`, "neither"},
		"no JSON":   {`<html>`, "cannot be parsed"},
		"artifact": {
			`{"schemaVersion":2,"config":{"mediaType":"application/vnd.example","size":1,"digest":"` + someDigest +
				`"},"layers":[]}`, "not a container image",
		},
		"huge config": {
			`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":99999999,"digest":"` +
				someDigest + `"},"layers":[]}`, "more than",
		},
	} {
		t.Run(name, func(t *testing.T) {
			h.setFault(func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
				http.ServeContent(w, r, "", zeroTime, bytes.NewReader([]byte(c.manifest)))
				return true
			})
			_, err := s.Pull(t.Context(), ref, nil)
			expectError(t, err, errdefs.IsFailedPrecondition, ref, c.says)
		})
	}
}

func TestBadReferenceIsRefusedBeforeAnyNetwork(t *testing.T) {
	h := newHub(t)
	s := open(t, image.Config{})
	for _, ref := range []string{"", h.host() + "/App", h.host() + "/a:b:c", someDigest[7:]} {
		_, err := s.Pull(t.Context(), ref, nil)
		expectError(t, err, errdefs.IsInvalidArgument)
	}
	_, err := s.Pull(t.Context(), h.host()+"/a", &registry.Auth{Auth: "%%%"})
	expectError(t, err, errdefs.IsInvalidArgument, "base64")
	equal(t, "requests", h.count(""), 0)
}
