package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// archiveIngest begins the names of ingests by containerd's importer of archives.
const archiveIngest = "tar-"

// ingestName is the name of a blob's download in the content store.
func ingestName(dgst digest.Digest) string { return "blob-" + dgst.String() }

// ingest is an unfinished write to the content store. Its directory is read here. The content
// store's own listing fails altogether if a power cut has damaged one of them.
type ingest struct {
	path    string
	name    string    // empty if it cannot be read
	touched time.Time // the last write
}

func (s *Store) ingests() ([]ingest, error) {
	dir := filepath.Join(s.cfg.Root, "content", "ingest")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list downloads: %w", err)
	}
	var list []ingest
	for _, e := range entries {
		in := ingest{path: filepath.Join(dir, e.Name())}
		if name, err := os.ReadFile(filepath.Join(in.path, "ref")); err == nil {
			in.name = string(name)
		}
		for _, file := range []string{in.path, filepath.Join(in.path, "data")} {
			if fi, err := os.Stat(file); err == nil && fi.ModTime().After(in.touched) {
				in.touched = fi.ModTime()
			}
		}
		list = append(list, in)
	}
	return list, nil
}

// removeIngests deletes those for which unwanted is true.
func (s *Store) removeIngests(unwanted func(ingest) bool) error {
	list, err := s.ingests()
	if err != nil {
		return err
	}
	var errs []error
	for _, in := range list {
		if unwanted(in) {
			errs = append(errs, os.RemoveAll(in.path))
		}
	}
	return errors.Join(errs...)
}

func (i ingest) stale() bool { return time.Since(i.touched) >= leftoverAge }

// ofArchive: the importer would take the rest of such an ingest for the beginning of the next
// archive's file of that name.
func (i ingest) ofArchive() bool { return strings.HasPrefix(i.name, archiveIngest) }

// isLeftover is for Open, when nothing is being written: an ingest without a name belongs to
// nothing.
func (i ingest) isLeftover() bool { return i.stale() || i.ofArchive() || i.name == "" }

// removeArchive deletes what an archive had besides images.
func (s *Store) removeArchive(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	if err := errors.Join(s.removeIngests(ingest.ofArchive), s.removeOldBlobs(ctx, 0)); err != nil {
		s.log.Warn("leftovers of a pull could not be removed of an archive", "error", err)
	}
}
