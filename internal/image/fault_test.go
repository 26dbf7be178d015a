package image_test

import (
	"bytes"
	"crypto/rand"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/pinfold-run/pinfold/internal/image"
)

const bigSize = 4 << 20

// bigLayer does not compress: its blob is as large as its content.
func bigLayer(t *testing.T) (builtLayer, []byte) {
	t.Helper()
	raw := make([]byte, bigSize)
	_, _ = rand.Read(raw)
	raw = archiveOf(t, reg("random", string(raw)))
	return rawLayer(raw, imagespec.MediaTypeImageLayer), raw
}

// onLayer is a fault of one blob's downloads; n counts them from 1.
func onLayer(t *testing.T, h *hub, l builtLayer, f func(w http.ResponseWriter, r *http.Request, n int) bool) {
	t.Helper()
	digest := l.digest()
	var n atomic.Int64
	h.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, digest.String()) {
			return false
		}
		return f(w, r, int(n.Add(1)))
	})
}

// half sends the first half of raw and breaks the connection.
func half(w http.ResponseWriter, raw []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
	_, _ = w.Write(raw[:len(raw)/2])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// serve answers as registries do. It supports ranges with an open end, which the registry of these
// tests does not.
func serve(w http.ResponseWriter, r *http.Request, raw []byte) {
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", zeroTime, bytes.NewReader(raw))
}

func TestRegistryWithoutRangesIsAskedForTheWholeAgain(t *testing.T) {
	h := newHub(t)
	l, raw := bigLayer(t)
	ref := h.push(t, "app:1", imageOf(t, "a", l))
	onLayer(t, h, l, func(w http.ResponseWriter, _ *http.Request, n int) bool {
		if n == 1 {
			half(w, raw)
		}
		return false
	})
	pull(t, open(t, image.Config{}), ref)
}

func TestInterruptedDownloadGoesOnWhereItStopped(t *testing.T) {
	h := newHub(t)
	l, raw := bigLayer(t)
	ref := h.push(t, "app:1", imageOf(t, "a", l))
	var from atomic.Value
	onLayer(t, h, l, func(w http.ResponseWriter, r *http.Request, n int) bool {
		if n == 1 {
			half(w, raw)
		}
		from.Store(r.Header.Get("Range"))
		serve(w, r, raw)
		return true
	})
	pull(t, open(t, image.Config{}), ref)
	if got, _ := from.Load().(string); got == "" || got == "bytes=0-" {
		t.Errorf("the second request asked for %q", got)
	}
}

func TestLostNetworkIsUnavailableAndTheNextPullResumes(t *testing.T) {
	h := newHub(t)
	l, raw := bigLayer(t)
	ref := h.push(t, "app:1", imageOf(t, "a", l))
	onLayer(t, h, l, func(w http.ResponseWriter, _ *http.Request, n int) bool {
		if n == 1 {
			half(w, raw)
		}
		panic(http.ErrAbortHandler)
	})
	root := t.TempDir()
	s := open(t, image.Config{Root: root})
	_, err := s.Pull(t.Context(), ref, nil)
	expectError(t, err, errdefs.IsUnavailable, ref, h.host(), "of "+strconv.Itoa(len(raw))+" bytes received")
	// What was received is kept, also after a restart, and nothing is listed.
	expectInventory(t, root, map[string]int{"blobs": 2, "ingests": 1})
	s.Close()
	s = open(t, image.Config{Root: root})
	equal(t, "images", len(s.List()), 0)
	var from atomic.Value
	onLayer(t, h, l, func(w http.ResponseWriter, r *http.Request, _ int) bool {
		from.Store(r.Header.Get("Range"))
		serve(w, r, raw)
		return true
	})
	pull(t, s, ref)
	if got, _ := from.Load().(string); got == "" || got == "bytes=0-" {
		t.Errorf("the repetition asked for %q", got)
	}
	expectInventory(t, root, map[string]int{"layers": 1, "records": 1, "blobs": 2})
}

func TestStalledRegistryEndsThePullWithHostBlobAndProgress(t *testing.T) {
	const stall = 300 * time.Millisecond
	h := newHub(t)
	l, raw := bigLayer(t)
	digest := l.digest()
	ref := h.push(t, "app:1", imageOf(t, "a", l))
	t.Run("in the middle of a body", func(t *testing.T) {
		onLayer(t, h, l, func(w http.ResponseWriter, r *http.Request, _ int) bool {
			w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
			_, _ = w.Write(raw[:len(raw)/2])
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return true
		})
		s := open(t, image.Config{StallTimeout: stall})
		began := time.Now()
		_, err := s.Pull(t.Context(), ref, nil)
		expectError(t, err, errdefs.IsUnavailable, h.host(), digest.String(), "no byte for 300ms",
			"("+strconv.Itoa(len(raw)/2)+" of")
		if took := time.Since(began); took > 20*stall {
			t.Errorf("took %v", took)
		}
		h.setFault(nil)
		pull(t, s, ref)
	})
	t.Run("before any answer", func(t *testing.T) {
		h.setFault(func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true })
		_, err := open(t, image.Config{StallTimeout: stall}).Pull(t.Context(), ref, nil)
		expectError(t, err, errdefs.IsUnavailable, h.host(), "no byte for 300ms")
	})
}

func TestSlowRegistryIsNotStalled(t *testing.T) {
	const stall = 400 * time.Millisecond
	h := newHub(t)
	l, raw := bigLayer(t)
	ref := h.push(t, "app:1", imageOf(t, "a", l))
	onLayer(t, h, l, func(w http.ResponseWriter, _ *http.Request, _ int) bool {
		w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
		for i := range 8 {
			_, _ = w.Write(raw[i*len(raw)/8 : (i+1)*len(raw)/8])
			_ = http.NewResponseController(w).Flush()
			time.Sleep(stall / 4) // the test needs a slow server
		}
		return true
	})
	pull(t, open(t, image.Config{StallTimeout: stall}), ref)
}

func TestWrongContentIsDataLossAndLeavesNothing(t *testing.T) {
	h := newHub(t)
	l, raw := bigLayer(t)
	digest := l.digest()
	ref := h.push(t, "app:1", imageOf(t, "a", l))
	for name, body := range map[string][]byte{
		"other bytes": append(append([]byte{}, raw[:len(raw)-1]...), raw[len(raw)-1]^1),
		"too long":    append(append([]byte{}, raw...), 0),
	} {
		t.Run(name, func(t *testing.T) {
			onLayer(t, h, l, func(w http.ResponseWriter, _ *http.Request, _ int) bool {
				_, _ = w.Write(body)
				return true
			})
			root := t.TempDir()
			s := open(t, image.Config{Root: root})
			_, err := s.Pull(t.Context(), ref, nil)
			expectError(t, err, errdefs.IsDataLoss, ref, digest.String())
			expectInventory(t, root, map[string]int{"blobs": 2})
			h.setFault(nil)
			pull(t, s, ref)
		})
	}
}

func TestDamagedPartOfAnOldDownloadIsFetchedAnew(t *testing.T) {
	h := newHub(t)
	l, raw := bigLayer(t)
	ref := h.push(t, "app:1", imageOf(t, "a", l))
	onLayer(t, h, l, func(w http.ResponseWriter, _ *http.Request, n int) bool {
		if n == 1 {
			half(w, raw)
		}
		panic(http.ErrAbortHandler)
	})
	root := t.TempDir()
	s := open(t, image.Config{Root: root})
	_, err := s.Pull(t.Context(), ref, nil)
	expectError(t, err, errdefs.IsUnavailable)
	s.Close()
	// A power cut has turned what was received into zeros.
	parts, err := filepath.Glob(filepath.Join(root, "content/ingest/*/data"))
	must(t, err)
	equal(t, "downloads", len(parts), 1)
	fi, err := os.Stat(parts[0])
	must(t, err)
	must(t, os.Truncate(parts[0], 0))
	must(t, os.Truncate(parts[0], fi.Size()))
	h.setFault(nil)
	pull(t, open(t, image.Config{Root: root}), ref)
}

func TestLayerThatIsNotWhatTheConfigurationSaysIsDataLoss(t *testing.T) {
	h := newHub(t)
	good := layerOf(t, reg("a", "good"))
	img := imageOf(t, "a", good)
	lie := builtImage{img.config, []builtLayer{layerOf(t, reg("a", "evil"))}}
	ref := h.push(t, "app:1", lie)
	root := t.TempDir()
	s := open(t, image.Config{Root: root})
	_, err := s.Pull(t.Context(), ref, nil)
	expectError(t, err, errdefs.IsDataLoss, "unpack layer "+good.diffID.String())
	equal(t, "layers", inventory(t, root)["layers"], 0)
	equal(t, "temporary", inventory(t, root)["temporary"], 0)
}

func TestDownloadsShareALimit(t *testing.T) {
	h := newHub(t)
	var refs []string
	for _, n := range []string{"a", "b", "c", "d"} {
		refs = append(refs, h.push(t, n+":1", imageOf(t, n, layerOf(t, reg(n, n)), layerOf(t, reg(n, n+n)))))
	}
	var now, most atomic.Int64
	h.setFault(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			time.Sleep(20 * time.Millisecond) // long enough for other downloads to begin, if they may
			now.Add(-1)
		}
		return false
	})
	s := open(t, image.Config{MaxDownloads: 1})
	done := make(chan error, len(refs))
	for _, ref := range refs {
		go func() { _, err := s.Pull(t.Context(), ref, nil); done <- err }()
	}
	for range refs {
		must(t, <-done)
	}
	// Configurations are small and not limited. So one of each image may be in progress in addition
	// to the one layer.
	if most.Load() > int64(1+len(refs)) {
		t.Errorf("%d downloads at once", most.Load())
	}
}

func TestADamagedPartOfAManifestIsWrittenAnew(t *testing.T) {
	h := newHub(t)
	img := imageOf(t, "a", layerOf(t, reg("a", "")))
	ref := h.push(t, "app:1", img)
	root := t.TempDir()
	open(t, image.Config{Root: root}).Close()
	store, err := local.NewStore(filepath.Join(root, "content"))
	must(t, err)
	digest := img.digest(t)
	// What a power cut leaves of a manifest that was being written.
	w, err := store.Writer(t.Context(), content.WithRef("blob-"+digest.String()))
	must(t, err)
	_, err = w.Write(make([]byte, 10))
	must(t, err)
	must(t, w.Close())
	pull(t, open(t, image.Config{Root: root}), ref)
}

func TestAConnectionThatIsResetOnceIsNoFailure(t *testing.T) {
	for _, part := range []string{"/manifests/", "/blobs/"} {
		t.Run(part, func(t *testing.T) {
			h := newHub(t)
			ref := h.push(t, "app:1", imageOf(t, "a", layerOf(t, reg("a", ""))))
			var once sync.Once
			h.setFault(func(w http.ResponseWriter, r *http.Request) bool {
				reset := false
				if strings.Contains(r.URL.Path, part) {
					once.Do(func() { reset = true })
				}
				if reset {
					conn, _, err := w.(http.Hijacker).Hijack()
					must(t, err)
					must(t, conn.(*net.TCPConn).SetLinger(0))
					must(t, conn.Close())
				}
				return reset
			})
			pull(t, open(t, image.Config{}), ref)
		})
	}
}
