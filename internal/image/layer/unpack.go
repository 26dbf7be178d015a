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
	"github.com/containerd/containerd/v2/pkg/archive"
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
	if err := applyStream(ctx, content.NewReader(ra), tree, s.trees(src.Parents), src.DiffID); err != nil {
		return err
	}
	info, err := measure(tree)
	if err != nil {
		return err
	}
	info.DiffID = src.DiffID.String()
	return blob.DiskClass(s.commit(temp, src.Chain, info))
}

// applyStream unpacks a layer archive, compressed or not, and checks the digest of the uncompressed
// archive.
func applyStream(ctx context.Context, r io.Reader, tree string, parents []string, diffID digest.Digest) error {
	plain, err := tarfile.Open(r)
	if err != nil {
		return unusable(err)
	}
	defer func() { _ = plain.Close() }() // only read from
	digester := diffID.Algorithm().Digester()
	tee := io.TeeReader(plain, digester.Hash())
	gone := &whiteouts{root: tree, parents: parents}
	var last *tar.Header
	convert := func(hdr *tar.Header, path string) (bool, error) {
		last = hdr
		return gone.convert(hdr, path)
	}
	// Missing parent directories get the attributes that they have in the layers below.
	_, err = archive.Apply(ctx, tree, tee, archive.WithConvertWhiteout(convert), archive.WithParents(parents))
	if err != nil {
		err = attributesTooLarge(err, last, tree)
	} else {
		_, err = io.Copy(io.Discard, tarfile.WithContext(ctx, tee)) // the digest includes the padding
	}
	if err != nil {
		return unusable(err)
	}
	if got := digester.Digest(); got != diffID {
		return fmt.Errorf("the archive's digest is %s: %w", got, errdefs.ErrDataLoss)
	}
	return gone.write(ctx)
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
		if strings.HasPrefix(key, "SCHILY.xattr.") {
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
