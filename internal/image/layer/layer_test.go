package layer

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/pinfold-run/pinfold/internal/image/blob"
	"github.com/pinfold-run/pinfold/internal/tree"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// archiveOf is a tar with one file of this process's user.
func archiveOf(t *testing.T, name, text string) []byte {
	t.Helper()
	var raw bytes.Buffer
	w := tar.NewWriter(&raw)
	must(t, w.WriteHeader(&tar.Header{Name: name, Size: int64(len(text)), Mode: 0o644, Uid: os.Getuid(), Gid: os.Getgid()}))
	_, err := w.Write([]byte(text))
	must(t, err)
	must(t, w.Close())
	return raw.Bytes()
}

// put stores a layer's blob and returns what Unpack needs to know. The layer has no parents, so its chain ID is its
// diff ID.
func put(t *testing.T, blobs *blob.Store, raw []byte) Source {
	t.Helper()
	desc := ocispec.Descriptor{Digest: digest.FromBytes(raw), Size: int64(len(raw)), MediaType: ocispec.MediaTypeImageLayer}
	must(t, content.WriteBlob(t.Context(), blobs, blob.IngestName(desc.Digest), bytes.NewReader(raw), desc))
	return Source{Chain: desc.Digest.String(), DiffID: desc.Digest, Blob: desc}
}

func open(t *testing.T, root string) (*Store, *blob.Store) {
	t.Helper()
	s, err := Open(root)
	must(t, err)
	blobs, err := blob.Open(filepath.Join(root, "content"))
	must(t, err)
	return s, blobs
}

func TestALayerIsUnpackedAndRemoved(t *testing.T) {
	root := t.TempDir()
	s, blobs := open(t, root)
	src := put(t, blobs, archiveOf(t, "etc-name", "value"))
	if s.Exists(src.Chain) {
		t.Fatal("the layer exists before it is unpacked")
	}
	must(t, s.Unpack(t.Context(), blobs, src))
	got, err := os.ReadFile(filepath.Join(s.Roots([]string{src.Chain})[0], "etc-name"))
	if err != nil || string(got) != "value" {
		t.Errorf("the file has %q, %v", got, err)
	}
	info, err := s.Info(src.Chain)
	if err != nil || info.Inodes != 2 || info.DiffID != src.DiffID.String() || info.MaxUID != uint32(os.Getuid()) {
		t.Errorf("%+v, %v", info, err)
	}
	again, _ := open(t, root)
	if fresh, err := again.Info(src.Chain); err != nil || fresh != info {
		t.Errorf("after another Open: %+v, %v, want %+v", fresh, err, info)
	}
	list, err := s.List()
	if _, ok := list[src.Chain]; err != nil || !ok || len(list) != 1 {
		t.Errorf("the list is %v, %v", list, err)
	}
	if _, inodes, err := s.Usage(); err != nil || inodes != info.Inodes {
		t.Errorf("usage counts %d inodes, %v", inodes, err)
	}
	rest, err := s.Unname(src.Chain)
	must(t, err)
	if s.Exists(src.Chain) {
		t.Error("a layer without a name exists")
	}
	must(t, tree.Remove(t.Context(), rest))
}

func TestALostMeasureIsTakenAgain(t *testing.T) {
	root := t.TempDir()
	s, blobs := open(t, root)
	src := put(t, blobs, archiveOf(t, "file", "text"))
	must(t, s.Unpack(t.Context(), blobs, src))
	before, err := s.Info(src.Chain)
	must(t, err)
	must(t, os.Remove(filepath.Join(s.path(src.Chain), "layer.json")))
	s, _ = open(t, root)
	after, err := s.Info(src.Chain)
	before.DiffID = "" // layer.json alone knows it
	if err != nil || after != before {
		t.Errorf("%+v, %v, want %+v", after, err, before)
	}
}

func TestAWrongArchiveLeavesNothing(t *testing.T) {
	root := t.TempDir()
	s, blobs := open(t, root)
	src := put(t, blobs, archiveOf(t, "file", "text"))
	src.DiffID = digest.FromString("something else")
	if err := s.Unpack(t.Context(), blobs, src); !errdefs.IsDataLoss(err) {
		t.Errorf("Unpack: %v", err)
	}
	entries, err := os.ReadDir(filepath.Join(root, "layers"))
	if err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestOpenRemovesLeftoversAndKeepsLayers(t *testing.T) {
	root := t.TempDir()
	s, blobs := open(t, root)
	src := put(t, blobs, archiveOf(t, "file", "text"))
	must(t, s.Unpack(t.Context(), blobs, src))
	must(t, os.MkdirAll(filepath.Join(root, "layers", ".tmp-x", "fs"), 0o755))
	s, _ = open(t, root)
	entries, err := os.ReadDir(filepath.Join(root, "layers"))
	if err != nil || len(entries) != 1 || !s.Exists(src.Chain) {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestTheDirectoriesOfARootAreTopmostFirst(t *testing.T) {
	s, _ := open(t, t.TempDir())
	a, b := digest.FromString("a").String(), digest.FromString("b").String()
	if got, want := s.Roots([]string{a, b}), []string{s.tree(b), s.tree(a)}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	empty := s.Roots(nil)
	fi, err := os.Stat(empty[0])
	if len(empty) != 1 || err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("without layers: %q, %v, %v", empty, fi, err)
	}
}
