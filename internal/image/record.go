package image

import (
	"context"
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
	"github.com/pinfold-run/pinfold/internal/tree"
)

// recordSchema is the version that is written. A reader refuses a greater one.
const recordSchema = 1

const tempPrefix = durable.TempPrefix

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

// recordName is the file name for an image ID, which is always a valid digest (see validate).
func recordName(id string) string { return reference.FileName(id) + ".json" }

// removedSuffix is added to the name of a record if its image was removed and the disk was full, so
// that the record could not be rewritten. A rename needs no space.
const removedSuffix = ".removed"

// noteRemoved records that an image is not listed any more, but containers hold its layers.
func noteRemoved(dir string, nameless *Image) error {
	err := writeRecord(dir, newRecord(nameless, true))
	if err == nil {
		return nil
	}
	file := filepath.Join(dir, recordName(nameless.ID))
	if renameErr := os.Rename(file, file+removedSuffix); renameErr != nil {
		return errors.Join(err, renameErr)
	}
	return durable.SyncDir(dir)
}

// readRecord reads and checks one record. name is the file's name, which must match the content.
func readRecord(dir, name string) (*record, error) {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, err
	}
	if base, removed := strings.CutSuffix(name, removedSuffix); removed {
		name, r.Removed = base, true
	}
	return &r, r.validate(name)
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

// writeRecord replaces the image's record. After nil it is on the disk.
func writeRecord(dir string, r record) error {
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("record of image %s: %w", r.ID, err)
	}
	err = durable.Replace(filepath.Join(dir, recordName(r.ID)), data)
	if err == nil {
		err = os.Remove(filepath.Join(dir, recordName(r.ID)+removedSuffix)) // the image is not removed any more
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("write record of image %s: %w", r.ID, err)
	}
	return nil
}

// removeRecord is idempotent. After nil the removal is on the disk.
func removeRecord(dir, id string) error {
	for _, suffix := range []string{removedSuffix, ""} {
		err := os.Remove(filepath.Join(dir, recordName(id)+suffix))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove record of image %s: %w", id, err)
		}
	}
	return durable.SyncDir(dir)
}

// removeTemporary removes the temporary files of a process that was interrupted.
func removeTemporary(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			errs = append(errs, tree.Remove(context.Background(), filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}
