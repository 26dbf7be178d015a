package image

import (
	"maps"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

func someImage(name string, chain ...string) *Image {
	return &Image{ID: digest.FromString(name).String(), Chain: chain}
}

func byID(images ...*Image) map[string]*Image {
	all := map[string]*Image{}
	for _, img := range images {
		all[img.ID] = img
	}
	return all
}

// keys are those of the images' configurations and the given layers.
func keys(layers []string, images ...*Image) []string {
	var all []string
	for _, chain := range layers {
		all = append(all, layerKey(chain))
	}
	for _, img := range images {
		all = append(all, blobKey(digest.Digest(img.ID)))
	}
	slices.Sort(all)
	return all
}

func expectNeeded(t *testing.T, r *roots, what string, want []string) {
	t.Helper()
	if got := slices.Sorted(maps.Keys(r.needed())); !slices.Equal(got, want) {
		t.Errorf("%s: needed are %q, want %q", what, got, want)
	}
}

func TestWhatMustStay(t *testing.T) {
	r := newRoots()
	a, b := someImage("a", "base", "a"), someImage("b", "base", "b")
	r.list(byID(a, b), a.ID)
	expectNeeded(t, r, "listed", keys([]string{"base", "a", "b"}, a, b))

	r.declared()
	if _, err := r.hold(b.ID, "c1", "b"); err != nil {
		t.Fatal(err)
	}
	if r.unlist(byID(a), b) {
		t.Error("a held image counts as free")
	}
	expectNeeded(t, r, "removed and held", keys([]string{"base", "a", "b"}, a, b))
	if r.forget(b.ID) != nil {
		t.Error("a held image was forgotten")
	}
	r.release(b.ID, "c1")
	if r.forget(b.ID) != b {
		t.Error("an image without a hold was not forgotten")
	}
	expectNeeded(t, r, "released", keys([]string{"base", "a"}, a))

	r.lease(layerKey("b"))
	r.lease(layerKey("b"))
	r.unlease([]string{layerKey("b")})
	expectNeeded(t, r, "leased once more", keys([]string{"base", "a", "b"}, a))
	r.unlease([]string{layerKey("b")})
	expectNeeded(t, r, "leased no more", keys([]string{"base", "a"}, a))
}

func TestALayerStaysWhileHoldsAreNotKnown(t *testing.T) {
	r := newRoots()
	removals := 0
	remove := func() error { removals++; return nil }
	try := func(what string, want int) {
		t.Helper()
		if err := r.unlessNeeded("layer", remove); err != nil {
			t.Fatal(err)
		}
		if removals != want {
			t.Errorf("%s: %d removals, want %d", what, removals, want)
		}
	}
	try("before all holds are declared", 0)
	r.declared()
	try("after that", 1)
	r.lease(layerKey("layer"))
	try("leased", 1)
}

func TestALostHoldKeepsAllLayers(t *testing.T) {
	r := newRoots()
	if _, err := r.hold("sha256:unknown", "c1", "unknown"); !errdefs.IsNotFound(err) {
		t.Fatalf("hold: %v", err)
	}
	r.declared()
	err := r.unlessNeeded("layer", func() error { t.Error("a layer was removed"); return nil })
	if err != nil {
		t.Fatal(err)
	}
}

func TestARemovedImageCanBeHeldUntilAllHoldsAreDeclared(t *testing.T) {
	r := newRoots()
	a := someImage("a", "layer")
	r.removed[a.ID] = a
	if img, err := r.hold(a.ID, "c1", "a"); err != nil || img != a {
		t.Fatalf("hold before: %v, %v", img, err)
	}
	if got := r.declared(); !slices.Equal(got, []string{a.ID}) {
		t.Errorf("removed images: %q", got)
	}
	if _, err := r.hold(a.ID, "c1", "a"); err != nil {
		t.Errorf("the same holder again: %v", err)
	}
	if _, err := r.hold(a.ID, "c2", "a"); !errdefs.IsNotFound(err) {
		t.Errorf("another holder: %v", err)
	}
}
