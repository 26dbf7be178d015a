package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/image/blob"
	"github.com/pinfold-run/pinfold/internal/image/reference"
	"github.com/pinfold-run/pinfold/internal/image/tarfile"
	"github.com/pinfold-run/pinfold/internal/kernel/durable"
	"github.com/pinfold-run/pinfold/internal/tree"
)

// Source is one layer to unpack.
type Source struct {
	Chain   string
	DiffID  digest.Digest
	Parents []string // chain IDs, bottom first
	Blob    ocispec.Descriptor
	// Below waits until the parents exist; nil if they do. Layers may be unpacked in any order and several at once.
	Below func(context.Context) error
}

// Unpack makes the layer from its blob. The caller holds the layer's lock and has leased the blob
// and the parents. On failure nothing is left. Classes: ErrDataLoss if the content does not match
// the image's configuration, ErrResourceExhausted if the disk is full, ErrFailedPrecondition if the
// blob is not a usable archive.
func (s *Store) Unpack(ctx context.Context, store content.Provider, src Source) (err error) {
	temp, err := os.MkdirTemp(s.dir, durable.TempPrefix+reference.FileName(src.Chain)+"-")
	if err != nil {
		return fmt.Errorf("unpack layer %s: %w", src.DiffID, blob.DiskClass(err))
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("unpack layer %s: %w", src.DiffID, err), tree.Remove(context.WithoutCancel(ctx), temp))
		}
	}()
	tree := filepath.Join(temp, "fs")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return blob.DiskClass(err)
	}
	if err := os.Chmod(tree, 0o755); err != nil { // the umask must not change the container's root
		return err
	}
	ra, err := store.ReaderAt(ctx, src.Blob)
	if err != nil {
		return err
	}
	defer func() { _ = ra.Close() }() // only read from
	if err := s.apply(ctx, content.NewReader(ra), tree, src); err != nil {
		return err
	}
	info, err := measure(tree)
	if err != nil {
		return err
	}
	info.DiffID = src.DiffID.String()
	return blob.DiskClass(s.commit(temp, src.Chain, info))
}

// apply unpacks a layer archive, compressed or not. First it writes the layer's own files, then what depends on the
// layers below. It waits for them without a slot: those that hold the slots may be the ones it waits for.
func (s *Store) apply(ctx context.Context, r io.Reader, tree string, src Source) error {
	a, err := newApplier(tree, &whiteouts{root: tree})
	if err != nil {
		return err
	}
	defer a.close()
	leave, err := s.slot(ctx)
	if err != nil {
		return err
	}
	err = applyStream(ctx, r, a, src.DiffID)
	leave()
	if err != nil {
		return err
	}
	a.dirs.forget()
	if src.Below != nil {
		if err := src.Below(ctx); err != nil {
			return err
		}
	}
	return a.finish(ctx, s.trees(src.Parents))
}

// slot waits until fewer layers are unpacked than there are processors.
func (s *Store) slot(ctx context.Context) (leave func(), err error) {
	select {
	case s.slots <- struct{}{}:
		return func() { <-s.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// applyStream writes a layer's own files and checks the digest of the uncompressed archive.
func applyStream(ctx context.Context, r io.Reader, a *applier, diffID digest.Digest) error {
	plain, err := tarfile.Open(r)
	if err != nil {
		return unusable(err)
	}
	defer func() { _ = plain.Close() }() // only read from
	ahead := newReadAhead(plain)
	defer ahead.close()
	digester := diffID.Algorithm().Digester()
	tee := io.TeeReader(ahead, digester.Hash())
	if err := a.all(ctx, tee); err != nil {
		return unusable(attributesTooLarge(err, a.last, a.gone.root))
	}
	if _, err := io.Copy(io.Discard, tarfile.WithContext(ctx, tee)); err != nil { // the digest includes the padding
		return unusable(err)
	}
	if got := digester.Digest(); got != diffID {
		return fmt.Errorf("the archive's digest is %s: %w", got, errdefs.ErrDataLoss)
	}
	return nil
}

// attributesTooLarge distinguishes extended attributes that the file system does not accept from a
// full disk. setxattr(2) returns ENOSPC for both (ext4 keeps all attributes of a file in one
// block).
func attributesTooLarge(err error, hdr *tar.Header, tree string) error {
	if hdr == nil || !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.E2BIG) && !errors.Is(err, syscall.ERANGE) {
		return err
	}
	size := 0
	for key, value := range hdr.PAXRecords {
		if strings.HasPrefix(key, attributePrefix) {
			size += len(value)
		}
	}
	var fs unix.Statfs_t
	if size == 0 || unix.Statfs(tree, &fs) != nil {
		return err
	}
	const room = 1 << 20 // a disk with this much free space has room for a block of attributes
	if fs.Bavail*uint64(fs.Bsize) < room || fs.Files > 0 && fs.Ffree == 0 {
		return err
	}
	// Without the errno, which would mean a full disk.
	return fmt.Errorf("%q has %d bytes of extended attributes, more than the file system of %s supports: %s: %w",
		hdr.Name, size, tree, err.Error(), errdefs.ErrFailedPrecondition)
}

// unusable gives an error of applying an archive its class: if neither the node nor the caller is
// the cause, the image is.
func unusable(err error) error {
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return blob.DiskClass(err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return fmt.Errorf("%w: %w", err, errdefs.ErrFailedPrecondition)
}

// IsLayer reports whether a blob has the type of a layer that can be unpacked.
func IsLayer(desc ocispec.Descriptor) bool {
	return images.IsLayerType(desc.MediaType) && !strings.HasSuffix(desc.MediaType, "+encrypted")
}
