package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/pinfold-run/pinfold/internal/image/reference"
	"github.com/pinfold-run/pinfold/internal/kernel/durable"
)

// recordSchema is the version that is written. A reader refuses a greater one.
const recordSchema = 1

// record is the content of a file in records/.
type record struct {
	Schema    int             `json:"schema"`
	ID        string          `json:"id"`
	Tags      []string        `json:"tags,omitempty"`
	Digests   []string        `json:"digests,omitempty"`
	Manifests []digest.Digest `json:"manifests,omitempty"`
	Chain     []string        `json:"chain"`
	Size      uint64          `json:"size"`
	MaxUID    uint32          `json:"max_uid"`
	MaxGID    uint32          `json:"max_gid"`
	Pulled    time.Time       `json:"pulled"`
	Pinned    bool            `json:"pinned,omitempty"`
	// Removed: the image is not listed any more, but containers hold its layers.
	Removed bool          `json:"removed,omitempty"`
	Config  ocispec.Image `json:"config"`
}

func newRecord(img *Image, removed bool) record {
	return record{
		Schema: recordSchema, ID: img.ID, Tags: img.Tags, Digests: img.Digests, Manifests: img.manifests,
		Chain: img.Chain, Size: img.Size, MaxUID: img.MaxUID, MaxGID: img.MaxGID, Pulled: img.Pulled,
		Pinned: img.Pinned, Removed: removed, Config: img.Config,
	}
}

func (r *record) image() *Image {
	return &Image{
		ID: r.ID, Tags: r.Tags, Digests: r.Digests, manifests: r.Manifests, Chain: r.Chain, Size: r.Size,
		MaxUID: r.MaxUID, MaxGID: r.MaxGID, Pulled: r.Pulled, Pinned: r.Pinned, Config: r.Config,
	}
}

// records is the directory of records, and the quarantine of those that could not be used.
type records struct{ dir, quarantine string }

// openRecords opens the records below root, and removes what an interrupted process left half-made.
func openRecords(root string) (records, error) {
	r := records{dir: filepath.Join(root, "records"), quarantine: filepath.Join(root, "quarantine")}
	for _, dir := range []string{r.dir, r.quarantine} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return r, err
		}
	}
	if err := durable.RemoveTemporary(r.dir); err != nil {
		return r, fmt.Errorf("remove leftovers: %w", err)
	}
	return r, nil
}

// putAside moves a record to the quarantine and returns where it is there.
func (r records) putAside(name string) (string, error) {
	file := filepath.Join(r.quarantine, fmt.Sprintf("%s.%d", name, time.Now().UnixNano()))
	return file, os.Rename(filepath.Join(r.dir, name), file)
}

// recordName is the file name for an image ID, which is always a valid digest (see validate).
func recordName(id string) string { return reference.FileName(id) + ".json" }

// removedSuffix is added to the name of a record if its image was removed and the disk was full, so
// that the record could not be rewritten. A rename needs no space.
const removedSuffix = ".removed"

// noteRemoved records that an image is not listed any more, but containers hold its layers.
func (r records) noteRemoved(nameless *Image) error {
	err := r.write(newRecord(nameless, true))
	if err == nil {
		return nil
	}
	file := filepath.Join(r.dir, recordName(nameless.ID))
	if renameErr := os.Rename(file, file+removedSuffix); renameErr != nil {
		return errors.Join(err, renameErr)
	}
	return durable.SyncDir(r.dir)
}

// read reads and checks one record. name is the file's name, which must match the content.
func (r records) read(name string) (*record, error) {
	data, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil {
		return nil, err
	}
	var rec record
	if err := json.Unmarshal(data, &rec); err != nil {
		return nil, err
	}
	if base, removed := strings.CutSuffix(name, removedSuffix); removed {
		name, rec.Removed = base, true
	}
	return &rec, rec.validate(name)
}

func (r *record) validate(name string) error {
	if r.Schema < 1 || r.Schema > recordSchema {
		return fmt.Errorf("this version of Pinfold does not know schema %d", r.Schema)
	}
	if err := reference.CheckDigest(digest.Digest(r.ID)); err != nil {
		return fmt.Errorf("image ID: %w", err)
	}
	if name != recordName(r.ID) {
		return fmt.Errorf("the record is of image %s", r.ID)
	}
	for _, c := range r.Chain {
		if err := reference.CheckDigest(digest.Digest(c)); err != nil {
			return fmt.Errorf("chain ID: %w", err)
		}
	}
	return nil
}

// write replaces the image's record. After nil it is on the disk.
func (r records) write(rec record) error {
	data, err := json.MarshalIndent(rec, "", " ")
	if err != nil {
		return fmt.Errorf("record of image %s: %w", rec.ID, err)
	}
	file := filepath.Join(r.dir, recordName(rec.ID))
	if err = durable.Replace(file, data); err == nil {
		err = os.Remove(file + removedSuffix) // the image is not removed any more
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("write record of image %s: %w", rec.ID, err)
	}
	return nil
}

// remove is idempotent. After nil the removal is on the disk.
func (r records) remove(id string) error {
	for _, suffix := range []string{removedSuffix, ""} {
		err := os.Remove(filepath.Join(r.dir, recordName(id)+suffix))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove record of image %s: %w", id, err)
		}
	}
	return durable.SyncDir(r.dir)
}
