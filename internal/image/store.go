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

// leftoverAge is how long the downloads and layers of a pull that failed are kept for its repetition. The
// kubelet's longest back-off between two attempts is five minutes.
const leftoverAge = time.Hour

// Config is what a Store needs. Only Root is required.
type Config struct {
	// Root is the store's directory (<root>/images); made if missing.
	Root string
	// RegistryConfigDir holds HOST/hosts.toml and certificates in containerd's certs.d layout; several directories
	// are separated by colons. They are read at every pull and need not exist.
	RegistryConfigDir string
	// Log gets progress and what went wrong besides returned errors; nil is silence.
	Log *slog.Logger
	// MaxDownloads is the number of layers downloaded at once from one host by all pulls together; 3 if zero.
	MaxDownloads int
	// StallTimeout is how long a host may send nothing, or next to nothing, before another one is asked or the
	// pull ends; one minute if zero.
	StallTimeout time.Duration
	// ArchiveIdle ends a Load whose reader gives nothing for so long; ten minutes if zero.
	ArchiveIdle time.Duration
}

// Store is an open image store. All methods may be called by any goroutine at any time. One process may have a
// directory open.
type Store struct {
	cfg     Config
	log     *slog.Logger
	content content.Store
	layers  *layers
	hosts   hostStates
	pulls   *flights

	locks
	loading
	blobGate sync.RWMutex // held by Load while an archive's blobs arrive unpinned, read-held to delete one

	writing sync.Mutex // one change of records and catalog at a time

	mu      sync.Mutex
	catalog atomic.Pointer[catalog] // replaced under writing and mu, read without
	state
}

// locks are held for one layer or blob each.
type locks struct{ layerLocks, blobLocks, dropLocks keylock.Set }

// loading is what loads of archives share, and pulls with them.
type loading struct {
	documents *semaphore.Weighted // bytes of those that are being read

	loads  keylock.Set  // one Load at a time, under the key "": archives share names of ingests
	spools atomic.Int32 // archives being received
}

// state is guarded by Store.mu.
type state struct {
	removed     map[string]*Image          // not listed, bytes kept: by image ID
	holds       map[string]map[string]bool // image ID -> holders
	pins        map[string]int             // see lease
	swept       bool                       // all holds have been declared
	lostHold    bool                       // a hold was declared for an image that is not known
	quarantined []Quarantined
}

// Quarantined is an image record that could not be used and was put aside.
type Quarantined struct {
	// File is where the record is now, Reason what was wrong with it.
	File, Reason string
}

// Open opens the store, making its directories if they are missing, and removes what an interrupted process left
// half-made. It deletes no layer: that is Sweep's. A record that cannot be used is put aside (see Quarantined) and
// does not stop anything. The error is that of a directory that cannot be used.
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
			removed: map[string]*Image{}, holds: map[string]map[string]bool{}, pins: map[string]int{},
		},
	}
	for _, dir := range []string{s.layers.dir, s.records(), s.quarantine()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open image store: %w", err)
		}
	}
	// It is the container's root directory: its mode is not for the umask.
	if err := errors.Join(os.MkdirAll(s.emptyTree(), 0o755), os.Chmod(s.emptyTree(), 0o755)); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	if err := errors.Join(removeTemporary(s.layers.dir), removeTemporary(s.records()), s.dropIngests(ingest.hopeless)); err != nil {
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

// emptyTree stands for the layers of an image that has none.
func (s *Store) emptyTree() string { return filepath.Join(s.cfg.Root, "empty") }

func (s *Store) quarantine() string { return filepath.Join(s.cfg.Root, "quarantine") }

// List returns all images, ordered by ID. It never waits.
func (s *Store) List() []*Image { return s.catalog.Load().list() }

// Resolve finds an image by a name, full or familiar (busybox), by a name with digest, by its ID with or without
// "sha256:", or by an unambiguous beginning of the ID of at least 12 digits. It never waits.
func (s *Store) Resolve(ref string) (*Image, bool) {
	img := s.catalog.Load().find(ref)
	return img, img != nil
}

// Quarantined returns the records that were put aside when the store was opened.
func (s *Store) Quarantined() []Quarantined {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Quarantined(nil), s.quarantined...)
}

// Usage returns the bytes and inodes that layers and contents take, downloads in progress included. A part that
// cannot be read is left out and logged.
func (s *Store) Usage() (bytes, inodes uint64) {
	found, err := s.layers.list()
	if err != nil {
		s.log.Warn("image store usage", "error", err)
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
		s.log.Warn("image store usage", "error", err)
	}
	return bytes, inodes
}

// referenced is called with mu held. It returns the keys (see lease) of everything that must stay.
func (s *Store) referenced() map[string]bool {
	keep := map[string]bool{}
	for key := range s.pins {
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

// dropBlob deletes a blob that nothing refers to; a blob that has to stay, or may have to, is left for Sweep.
func (s *Store) dropBlob(dgst digest.Digest) {
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
		return // the Load deletes what is unused at its end
	}
	defer s.blobGate.RUnlock()
	if wanted() {
		return
	}
	if err := s.content.Delete(context.Background(), dgst); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("delete unused blob", "digest", dgst, "error", err)
	}
}
