package blob

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	must(t, err)
	return s
}

func put(t *testing.T, s *Store, text string) digest.Digest {
	t.Helper()
	desc := ocispec.Descriptor{Digest: digest.FromString(text), Size: int64(len(text))}
	must(t, content.WriteBlob(t.Context(), s, IngestName(desc.Digest), bytes.NewReader([]byte(text)), desc))
	return desc.Digest
}

func has(t *testing.T, s *Store, dgst digest.Digest) bool {
	t.Helper()
	list, err := s.List(t.Context())
	must(t, err)
	_, ok := list[dgst]
	return ok
}

func TestABlobIsRemovedOnlyIfItIsNotNeeded(t *testing.T) {
	s := open(t, t.TempDir())
	dgst := put(t, s, "blob")
	must(t, s.Remove(dgst, func() bool { return true }))
	if !has(t, s, dgst) {
		t.Error("a needed blob was removed")
	}
	asked := 0
	must(t, s.Remove(dgst, func() bool { asked++; return asked > 1 }))
	if !has(t, s, dgst) {
		t.Error("a blob was removed that was needed once its lock was held")
	}
	must(t, s.Remove(dgst, func() bool { return false }))
	if has(t, s, dgst) {
		t.Error("a blob that is not needed is there")
	}
	must(t, s.Remove(dgst, func() bool { return false })) // again: no error
}

func TestNoBlobIsRemovedDuringAnImport(t *testing.T) {
	s := open(t, t.TempDir())
	dgst := put(t, s, "blob")
	done := s.Import()
	must(t, s.Remove(dgst, func() bool { return false }))
	if !has(t, s, dgst) {
		t.Error("a blob was removed during an import")
	}
	done()
	must(t, s.Remove(dgst, func() bool { return false }))
	if has(t, s, dgst) {
		t.Error("after the import the blob is not removed")
	}
}

func TestOpenRemovesWhatNothingContinues(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, name := range []string{IngestName(digest.FromString("kept")), IngestName(digest.FromString("old")), ArchiveIngest + "file", ""} {
		at := filepath.Join(dir, "ingest", digest.FromString(name).Encoded())
		must(t, os.MkdirAll(at, 0o755))
		must(t, os.WriteFile(filepath.Join(at, "data"), []byte("part"), 0o644))
		if name != "" {
			must(t, os.WriteFile(filepath.Join(at, "ref"), []byte(name), 0o644))
		}
		if name == IngestName(digest.FromString("old")) {
			before := time.Now().Add(-2 * LeftoverAge)
			for _, file := range []string{filepath.Join(at, "data"), at} {
				must(t, os.Chtimes(file, before, before))
			}
		}
	}
	if _, inodes, err := s.Usage(); err != nil || inodes < 4 {
		t.Errorf("usage counts %d inodes, %v", inodes, err)
	}
	s = open(t, dir)
	left, err := s.ingests()
	must(t, err)
	if len(left) != 1 || left[0].name != IngestName(digest.FromString("kept")) {
		t.Errorf("left: %+v", left)
	}
	must(t, s.RemoveIngests(func(Ingest) bool { return true }))
	if left, err := s.ingests(); err != nil || len(left) != 0 {
		t.Errorf("left: %+v, %v", left, err)
	}
}

func TestAFullDiskHasAClass(t *testing.T) {
	for _, errno := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		err := DiskClass(fmt.Errorf("write: %w", errno))
		if !errdefs.IsResourceExhausted(err) {
			t.Errorf("%v has no class", err)
		}
	}
	if err := DiskClass(syscall.EIO); errdefs.IsResourceExhausted(err) {
		t.Errorf("%v has the class of a full disk", err)
	}
	if DiskClass(nil) != nil {
		t.Error("no error became one")
	}
}
