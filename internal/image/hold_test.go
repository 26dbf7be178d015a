package image_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/image"
)

func TestRemoveByOneTagRemovesTheImage(t *testing.T) {
	h := newHub(t)
	src := imageOf(t, "a", layerOf(t, reg("a", "")))
	for name, ref := range map[string]func(img *image.Image) string{
		"tag":    func(img *image.Image) string { return img.Tags[1] },
		"digest": func(img *image.Image) string { return img.Digests[0] },
		"ID":     func(img *image.Image) string { return img.ID },
		"hex":    func(img *image.Image) string { return img.ID[7:] },
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			s := open(t, image.Config{Root: root})
			pull(t, s, h.push(t, "app:1", src))
			img := pull(t, s, h.push(t, "app:2", src))
			equal(t, "tags", len(img.Tags), 2)
			must(t, s.Remove(t.Context(), ref(img)))
			equal(t, "images", len(s.List()), 0)
			expectInventory(t, root, map[string]int{})
			must(t, s.Remove(t.Context(), ref(img)))
		})
	}
}

func TestRemoveOfNothingIsNoErrorAndOfNonsenseIs(t *testing.T) {
	s := open(t, image.Config{})
	for _, ref := range []string{"busybox", someDigest, someDigest[7:], "0123456789ab", "a@" + someDigest} {
		must(t, s.Remove(t.Context(), ref))
	}
	expectError(t, s.Remove(t.Context(), "not a reference"), errdefs.IsInvalidArgument)
}

func TestRemovedImageStaysOnDiskForThoseWhoHoldIt(t *testing.T) {
	h := newHub(t)
	root := t.TempDir()
	s := open(t, image.Config{Root: root})
	ref := h.push(t, "app:1", imageOf(t, "a", layerOf(t, reg("bottom", "")), layerOf(t, reg("top", ""))))
	img := pull(t, s, ref)
	dirs, held, err := s.Hold(img.ID, "c1")
	must(t, err)
	equal(t, "held", held.ID, img.ID)
	equal(t, "topmost", strings.Join(names(t, dirs[0]), ""), "top")
	equal(t, "bottom", strings.Join(names(t, dirs[1]), ""), "bottom")
	_, _, err = s.Hold(img.ID, "c2")
	must(t, err)
	must(t, s.Remove(t.Context(), ref))
	equal(t, "images", len(s.List()), 0)
	_, ok := s.Resolve(img.ID)
	equal(t, "found", ok, false)
	_, _, err = s.Hold(img.ID, "c3")
	expectError(t, err, errdefs.IsNotFound)
	_, _, err = s.Hold(img.ID, "c1") // again
	must(t, err)
	s.Release(img.ID, "c2")
	s.Release(img.ID, "c2")
	equal(t, "layers", inventory(t, root)["layers"], 2)
	s.Release(img.ID, "c1")
	expectInventory(t, root, map[string]int{})
}

func TestImagesThatShareALayerAreRemovedAtOnce(t *testing.T) {
	h := newHub(t)
	var files []file
	for i := range 300 {
		files = append(files, reg(fmt.Sprint("f", i), ""))
	}
	shared := layerOf(t, files...)
	var refs []string
	for _, name := range []string{"a", "b", "c", "d"} {
		refs = append(refs, h.push(t, name+":1", imageOf(t, name, shared, layerOf(t, reg(name, "")))))
	}
	root := t.TempDir()
	s := open(t, image.Config{Root: root})
	for range 5 {
		for _, ref := range refs {
			pull(t, s, ref)
		}
		var removals sync.WaitGroup
		for _, ref := range refs {
			removals.Go(func() {
				if err := s.Remove(t.Context(), ref); err != nil {
					t.Errorf("%s: %v", ref, err)
				}
			})
		}
		removals.Wait()
		expectInventory(t, root, map[string]int{})
	}
}

func TestHoldsAreDeclaredAgainAfterARestart(t *testing.T) {
	h := newHub(t)
	root := t.TempDir()
	s := open(t, image.Config{Root: root})
	kept := pull(t, s, h.push(t, "kept:1", imageOf(t, "kept", layerOf(t, reg("k", "")))))
	gone := pull(t, s, h.push(t, "gone:1", imageOf(t, "gone", layerOf(t, reg("g", "")))))
	for _, img := range []*image.Image{kept, gone} {
		_, _, err := s.Hold(img.ID, "c")
		must(t, err)
		must(t, s.Remove(t.Context(), img.ID))
	}
	s.Close()

	s = openWithUnknownHolds(t, image.Config{Root: root})
	equal(t, "images", len(s.List()), 0)
	equal(t, "layers before the sweep", inventory(t, root)["layers"], 2)
	dirs, _, err := s.Hold(kept.ID, "c")
	must(t, err)
	must(t, s.RemoveUnused(t.Context()))
	expectInventory(t, root, map[string]int{"layers": 1, "records": 1, "blobs": 2})
	equal(t, "file", strings.Join(names(t, dirs[0]), ""), "k")
	s.Release(kept.ID, "c")
	expectInventory(t, root, map[string]int{})
}

func TestPullBringsARemovedAndHeldImageBack(t *testing.T) {
	h := newHub(t)
	root := t.TempDir()
	s := open(t, image.Config{Root: root})
	src := imageOf(t, "a", layerOf(t, reg("a", "")))
	ref := h.push(t, "app:1", src)
	img := pull(t, s, ref)
	_, _, err := s.Hold(img.ID, "c")
	must(t, err)
	must(t, s.Remove(t.Context(), ref))
	h.forget()
	again := pull(t, s, ref)
	equal(t, "tags", sprint(again.Tags), sprint([]string{ref}))
	equal(t, "blobs fetched", h.count("GET /v2/app/blobs"), 0)
	s.Release(img.ID, "c")
	expectInventory(t, root, map[string]int{"layers": 1, "records": 1, "blobs": 2})
}

func TestPinnedIsKept(t *testing.T) {
	h := newHub(t)
	root := t.TempDir()
	s := open(t, image.Config{Root: root})
	ref := h.push(t, "app:1", imageOf(t, "a", layerOf(t, reg("a", ""))))
	pull(t, s, ref)
	must(t, s.SetPinned(ref, true))
	equal(t, "pinned after another pull", pull(t, s, ref).Pinned, true)
	s.Close()
	img, _ := open(t, image.Config{Root: root}).Resolve(ref)
	equal(t, "pinned after a restart", img.Pinned, true)
	expectError(t, s.SetPinned("none", true), errdefs.IsNotFound)
}

func TestOpenRemovesLeftoversAndRemoveUnusedGarbage(t *testing.T) {
	h := newHub(t)
	root := t.TempDir()
	s := open(t, image.Config{Root: root})
	ref := h.push(t, "app:1", imageOf(t, "a", layerOf(t, reg("a", ""))))
	pull(t, s, ref)
	s.Close()
	zeros := strings.Repeat("0", 64)
	must(t, os.MkdirAll(filepath.Join(root, "layers/.tmp-x/fs/etc"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "records/.tmp-1"), []byte("{"), 0o600))
	must(t, os.MkdirAll(filepath.Join(root, "layers", zeros, "fs"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "content/blobs/sha256", zeros), []byte("x"), 0o600))
	old := filepath.Join(root, "content/ingest/"+zeros)
	must(t, os.MkdirAll(old, 0o755))
	past := time.Now().Add(-2 * time.Hour)
	for name, text := range map[string]string{"data": "x", "ref": "blob-x"} {
		must(t, os.WriteFile(filepath.Join(old, name), []byte(text), 0o600))
		must(t, os.Chtimes(filepath.Join(old, name), past, past))
	}
	must(t, os.Chtimes(old, past, past))
	must(t, os.MkdirAll(filepath.Join(root, "content/ingest/torn"), 0o755))

	s = openWithUnknownHolds(t, image.Config{Root: root})
	equal(t, "temporary", inventory(t, root)["temporary"], 0)
	equal(t, "layers", inventory(t, root)["layers"], 2)
	must(t, s.RemoveUnused(t.Context()))
	expectInventory(t, root, map[string]int{"layers": 1, "records": 1, "blobs": 2})
	if _, ok := s.Resolve(ref); !ok {
		t.Error("the image is lost")
	}
}

func TestDamagedRecordStopsNothingAndThePullRepairsIt(t *testing.T) {
	h := newHub(t)
	ref := h.push(t, "app:1", imageOf(t, "a", layerOf(t, reg("a", ""))))
	fine := h.push(t, "fine:1", imageOf(t, "fine", layerOf(t, reg("f", ""))))
	for name, damage := range map[string]func(t *testing.T, file string, whole []byte){
		"empty": func(t *testing.T, file string, _ []byte) { must(t, os.WriteFile(file, nil, 0o600)) },
		"torn":  func(t *testing.T, file string, b []byte) { must(t, os.WriteFile(file, b[:len(b)/2], 0o600)) },
		"zeros": func(t *testing.T, file string, b []byte) { must(t, os.WriteFile(file, make([]byte, len(b)), 0o600)) },
		"newer": func(t *testing.T, file string, b []byte) { must(t, os.WriteFile(file, []byte(`{"schema":99}`), 0o600)) },
		"other's": func(t *testing.T, file string, b []byte) {
			must(t, os.WriteFile(file, []byte(strings.Replace(string(b), `"id": "sha256:`, `"id": "sha256:0`, 1)), 0o600))
		},
		"wild chain": func(t *testing.T, file string, b []byte) {
			must(t, os.WriteFile(file, []byte(strings.Replace(string(b), `"chain": [`, `"chain": ["../../x",`, 1)), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			s := open(t, image.Config{Root: root})
			img := pull(t, s, ref)
			pull(t, s, fine)
			s.Close()
			file := filepath.Join(root, "records", img.ID[7:]+".json")
			whole, err := os.ReadFile(file)
			must(t, err)
			damage(t, file, whole)

			text, log := newLog()
			s = openWithUnknownHolds(t, image.Config{Root: root, Log: log})
			equal(t, "quarantined", len(s.Quarantined()), 1)
			if !strings.Contains(text.String(), "image record was moved to the quarantine") {
				t.Errorf("log: %s", text)
			}
			if _, ok := s.Resolve(fine); !ok || len(s.List()) != 1 {
				t.Error("the other image is lost")
			}
			// A container that runs on the image keeps it.
			_, _, err = s.Hold(img.ID, "c")
			must(t, err)
			must(t, s.RemoveUnused(t.Context()))
			h.forget()
			again := pull(t, s, ref)
			equal(t, "ID", again.ID, img.ID)
			equal(t, "size", again.Size, img.Size)
			equal(t, "blobs fetched", h.count("GET /v2/app/blobs"), 0)
			s.Close()
			s = open(t, image.Config{Root: root})
			equal(t, "images after the repair", len(s.List()), 2)
			equal(t, "quarantined", len(s.Quarantined()), 0)
		})
	}
}

func TestHoldOfALostImageKeepsAllLayers(t *testing.T) {
	h := newHub(t)
	root := t.TempDir()
	s := open(t, image.Config{Root: root})
	img := pull(t, s, h.push(t, "app:1", imageOf(t, "a", layerOf(t, reg("a", "")))))
	s.Close()
	must(t, os.RemoveAll(filepath.Join(root, "records", img.ID[7:]+".json")))
	s = openWithUnknownHolds(t, image.Config{Root: root})
	_, _, err := s.Hold(img.ID, "c")
	expectError(t, err, errdefs.IsNotFound)
	must(t, s.RemoveUnused(t.Context()))
	equal(t, "layers", inventory(t, root)["layers"], 1)
}

func TestMissingLayerPutsTheImageAsideAndThePullRepairsIt(t *testing.T) {
	h := newHub(t)
	root := t.TempDir()
	ref := h.push(t, "app:1", imageOf(t, "a", layerOf(t, reg("a", "")), layerOf(t, reg("b", ""))))
	s := open(t, image.Config{Root: root})
	dirs := trees(t, s, pull(t, s, ref).ID)
	s.Close()
	must(t, os.RemoveAll(filepath.Dir(dirs[0])))
	s = open(t, image.Config{Root: root})
	equal(t, "images", len(s.List()), 0)
	equal(t, "quarantined", len(s.Quarantined()), 1)
	pull(t, s, ref)
	expectInventory(t, root, map[string]int{"layers": 2, "records": 1, "blobs": 2})
}

func TestClosedStoreRefusesPulls(t *testing.T) {
	s := open(t, image.Config{})
	s.Close()
	_, err := s.Pull(t.Context(), "busybox", nil)
	expectError(t, err, errdefs.IsUnavailable)
}
