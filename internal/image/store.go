package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/semaphore"

	"github.com/pinfold-run/pinfold/internal/image/keylock"
)

// Defaults of Config.
const (
	defaultMaxDownloads = 3
	defaultStallTimeout = time.Minute
)

// leftoverAge is how long downloads and layers of a failed pull are kept for the next attempt. The
// kubelet's longest back-off between two attempts is five minutes.
const leftoverAge = time.Hour

// Config is what a Store needs. Only Root is required.
type Config struct {
	// Root is the store's directory (<root>/images); made if missing.
	Root string
	// RegistryConfigDir has HOST/hosts.toml and certificates in containerd's certs.d layout. Colons
	// separate several directories. They are read at every pull and may be missing.
	RegistryConfigDir string
	// Log gets progress, and errors that are not returned. nil means no log.
	Log *slog.Logger
	// MaxDownloads is how many layers all pulls together download from one host at a time; 3 if
	// zero.
	MaxDownloads int
	// StallTimeout is how long a host may send nothing, or almost nothing. Then another one is
	// asked, or the pull ends. One minute if zero.
	StallTimeout time.Duration
	// ArchiveIdle ends a Load whose reader returns nothing for this long; ten minutes if zero.
	ArchiveIdle time.Duration
}

// Store is an open image store. Any goroutine may call any method at any time. Only one process may
// have a directory open.
type Store struct {
	cfg     Config
	log     *slog.Logger
	content content.Store
	layers  *layers
	hosts   hostStates
	pulls   *flights

	locks
	loading
	blobGate sync.RWMutex // held by Load while an archive's blobs arrive without a lease; read-held to delete a blob

	writing sync.Mutex // one change of records and catalog at a time

	mu      sync.Mutex
	catalog atomic.Pointer[catalog] // written with writing and mu held, read without a lock
	state
}

// locks are locks for single layers and blobs.
type locks struct{ layerLocks, blobLocks, removeLocks keylock.Set }

// loading is shared by loads, and by pulls with them.
type loading struct {
	documents *semaphore.Weighted // bytes of the documents that are being read

	loads  keylock.Set  // one Load at a time, under the key "": archives use the same names of ingests
	spools atomic.Int32 // archives being received
}

// state is guarded by Store.mu.
type state struct {
	removed     map[string]*Image          // not listed, layers kept: by image ID
	holds       map[string]map[string]bool // image ID -> holders
	leased      map[string]int             // see lease
	holdsKnown  bool                       // all holds were declared
	lostHold    bool                       // a hold was declared for an unknown image
	quarantined []Quarantined
}

// Quarantined is an image record that could not be used and was moved to the quarantine.
type Quarantined struct {
	// File is where the record is now, Reason why it could not be used.
	File, Reason string
}

// Open opens the store, makes missing directories, and removes what an interrupted process left
// half-made. It deletes no layer; RemoveUnused does. A record that cannot be used is moved away
// (see Quarantined). An error means that a directory cannot be used.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.MaxDownloads <= 0 {
		cfg.MaxDownloads = defaultMaxDownloads
	}
	if cfg.StallTimeout <= 0 {
		cfg.StallTimeout = defaultStallTimeout
	}
	if cfg.ArchiveIdle <= 0 {
		cfg.ArchiveIdle = defaultArchiveIdle
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{
		cfg: cfg, log: cfg.Log, layers: newLayers(filepath.Join(cfg.Root, "layers")),
		pulls: newFlights(), loading: loading{documents: semaphore.NewWeighted(maxDocuments)},
		state: state{
			removed: map[string]*Image{}, holds: map[string]map[string]bool{}, leased: map[string]int{},
		},
	}
	for _, dir := range []string{s.layers.dir, s.records(), s.quarantine()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open image store: %w", err)
		}
	}
	// This directory becomes the container's root. The umask must not change its mode.
	if err := errors.Join(os.MkdirAll(s.emptyTree(), 0o755), os.Chmod(s.emptyTree(), 0o755)); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	if err := errors.Join(removeTemporary(s.layers.dir), removeTemporary(s.records()), s.removeIngests(ingest.isLeftover)); err != nil {
		return nil, fmt.Errorf("open image store %s: remove leftovers: %w", cfg.Root, err)
	}
	quietLibraries()
	var err error
	if s.content, err = local.NewStore(filepath.Join(cfg.Root, "content")); err != nil {
		return nil, fmt.Errorf("open image store %s: %w", cfg.Root, err)
	}
	return s, s.loadRecords(ctx)
}

// Close ends all pulls and waits for them. The store must not be used afterwards.
func (s *Store) Close() { s.pulls.close() }

func (s *Store) records() string { return filepath.Join(s.cfg.Root, "records") }

// emptyTree is the directory for an image without layers.
func (s *Store) emptyTree() string { return filepath.Join(s.cfg.Root, "empty") }

func (s *Store) quarantine() string { return filepath.Join(s.cfg.Root, "quarantine") }

// List returns all images, ordered by ID. It never waits.
func (s *Store) List() []*Image { return s.catalog.Load().list() }

// Resolve finds an image by a name, full or familiar (busybox), by a name with digest, by its ID
// with or without "sha256:", or by an unambiguous prefix of the ID of at least 12 digits. It never
// waits.
func (s *Store) Resolve(ref string) (*Image, bool) {
	img := s.catalog.Load().find(ref)
	return img, img != nil
}

// Quarantined returns the records that Open moved to the quarantine.
func (s *Store) Quarantined() []Quarantined {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Quarantined(nil), s.quarantined...)
}

// Usage returns the bytes and inodes of layers and contents, downloads in progress included. It
// logs and skips a part that cannot be read.
func (s *Store) Usage() (bytes, inodes uint64) {
	found, err := s.layers.list()
	if err != nil {
		s.log.Warn("the use of the image store could not be measured", "error", err)
	}
	for chain := range found {
		info, err := s.layers.info(chain)
		if err != nil {
			continue // removed meanwhile
		}
		bytes += info.Size
		inodes += info.Inodes
	}
	err = filepath.WalkDir(filepath.Join(s.cfg.Root, "content"), func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // a download that has ended meanwhile
		}
		if fi, err := d.Info(); err == nil {
			inodes++
			bytes += uint64(fi.Size())
		}
		return nil
	})
	if err != nil {
		s.log.Warn("the use of the image store could not be measured", "error", err)
	}
	return bytes, inodes
}

// referenced returns the keys (see lease) of everything that must stay. mu is held.
func (s *Store) referenced() map[string]bool {
	keep := map[string]bool{}
	for key := range s.leased {
		keep[key] = true
	}
	add := func(img *Image) {
		for _, chain := range img.Chain {
			keep[layerKey(chain)] = true
		}
		for _, dgst := range img.blobs() {
			keep[blobKey(dgst)] = true
		}
	}
	for _, img := range s.catalog.Load().images {
		add(img)
	}
	for _, img := range s.removed {
		add(img)
	}
	return keep
}

// removeBlob deletes a blob without a reference. If a blob must stay, or may have to, RemoveUnused
// decides later.
func (s *Store) removeBlob(dgst digest.Digest) {
	wanted := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.referenced()[blobKey(dgst)]
	}
	if wanted() {
		return
	}
	unlock, err := s.blobLocks.Lock(context.Background(), dgst.String())
	if err != nil {
		return
	}
	defer unlock()
	if !s.blobGate.TryRLock() {
		return // the Load deletes unused blobs at its end
	}
	defer s.blobGate.RUnlock()
	if wanted() {
		return
	}
	if err := s.content.Delete(context.Background(), dgst); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("an unused blob could not be removed", "digest", dgst, "error", err)
	}
}
