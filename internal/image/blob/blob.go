// Package blob is the store of blobs by digest and of the downloads in progress: containerd's local content store,
// with a lock for each blob.
package blob

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"

	"github.com/pinfold-run/pinfold/internal/image/keylock"
)

// Store is an open content store. Any goroutine may call any method at any time.
type Store struct {
	content.Store
	dir   string
	locks keylock.Set
	gate  sync.RWMutex // held by an import, read-held to remove a blob
}

// Open opens the store in dir, and removes the ingests that nothing will continue.
func Open(dir string) (*Store, error) {
	quietLibraries()
	s := &Store{dir: dir}
	if err := s.RemoveIngests(Ingest.isLeftover); err != nil {
		return nil, fmt.Errorf("remove leftovers: %w", err)
	}
	var err error
	s.Store, err = local.NewStore(dir)
	return s, err
}

// quietLibraries sets containerd's global logger to level error. Some of its code uses that logger
// without a context: opening a content store warns each time about a file system without fs-verity,
// which is not needed here.
var quietLibraries = sync.OnceFunc(func() { logrus.SetLevel(logrus.ErrorLevel) })

// Lock waits for the lock of key, or for the end of ctx. A key is a digest, or a text that begins with one. Only the
// holder of a digest's lock writes or removes that blob.
func (s *Store) Lock(ctx context.Context, key string) (unlock func(), err error) {
	return s.locks.Lock(ctx, key)
}

// Import keeps blobs from being removed until done is called: those of an archive arrive without a lease.
func (s *Store) Import() (done func()) {
	s.gate.Lock()
	return s.gate.Unlock
}

// Remove removes a blob that is not needed. During an import it does nothing. needed is called again with the blob's
// lock held.
func (s *Store) Remove(dgst digest.Digest, needed func() bool) error {
	ctx := context.Background()
	if needed() {
		return nil
	}
	unlock, err := s.Lock(ctx, dgst.String())
	if err != nil {
		return err
	}
	defer unlock()
	if !s.gate.TryRLock() {
		return nil // after the import, unused blobs are removed
	}
	defer s.gate.RUnlock()
	if needed() {
		return nil
	}
	if err := s.Delete(ctx, dgst); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// List returns all blobs, with the time at which each was complete.
func (s *Store) List(ctx context.Context) (map[digest.Digest]time.Time, error) {
	found := map[digest.Digest]time.Time{}
	err := s.Walk(ctx, func(info content.Info) error {
		found[info.Digest] = info.CreatedAt
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list blobs: %w", err)
	}
	return found, nil
}

// Usage returns the bytes and inodes of the store, downloads in progress included.
func (s *Store) Usage() (bytes, inodes uint64, err error) {
	err = filepath.WalkDir(s.dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // a download that has ended meanwhile
		}
		if fi, err := d.Info(); err == nil {
			inodes++
			bytes += uint64(fi.Size())
		}
		return nil
	})
	return bytes, inodes, err
}

// DiskClass marks the error of a full disk or quota as ErrResourceExhausted. Others it returns as they are.
func DiskClass(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrResourceExhausted)
	}
	return err
}
