package blob

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// LeftoverAge is how long downloads and layers of a failed pull are kept for the next attempt. The kubelet's longest
// back-off between two attempts is five minutes.
const LeftoverAge = time.Hour

// ArchiveIngest begins the names of ingests by containerd's importer of archives.
const ArchiveIngest = "tar-"

// IngestName is the name of a blob's download in the content store.
func IngestName(dgst digest.Digest) string { return "blob-" + dgst.String() }

// Ingest is an unfinished write to the content store. Its directory is read here. The content store's own listing fails
// altogether if a power cut has damaged one of them.
type Ingest struct {
	path    string
	name    string    // empty if it cannot be read
	touched time.Time // the last write
}

// Stale reports that nothing has been written to it for LeftoverAge.
func (i Ingest) Stale() bool { return time.Since(i.touched) >= LeftoverAge }

// OfArchive reports that it was read from an archive. The importer would take the rest of it for the beginning of the
// next archive's file of that name.
func (i Ingest) OfArchive() bool { return strings.HasPrefix(i.name, ArchiveIngest) }

// isLeftover is for Open, when nothing is being written: an ingest without a name belongs to nothing.
func (i Ingest) isLeftover() bool { return i.Stale() || i.OfArchive() || i.name == "" }

// RemoveIngests removes those for which unwanted is true.
func (s *Store) RemoveIngests(unwanted func(Ingest) bool) error {
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

func (s *Store) ingests() ([]Ingest, error) {
	dir := filepath.Join(s.dir, "ingest")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list downloads: %w", err)
	}
	var list []Ingest
	for _, e := range entries {
		in := Ingest{path: filepath.Join(dir, e.Name())}
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
