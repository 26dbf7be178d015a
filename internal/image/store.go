package image

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/pinfold-run/pinfold/internal/image/blob"
	"github.com/pinfold-run/pinfold/internal/image/keylock"
	"github.com/pinfold-run/pinfold/internal/image/layer"
	"github.com/pinfold-run/pinfold/internal/image/registry"
)

// Defaults of Config.
const (
	defaultMaxDownloads = 3
	defaultStallTimeout = time.Minute
)

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
	// Watch is told about pulls.
	Watch Watch
}

// Store is an open image store. Any goroutine may call any method at any time. Only one process may
// have a directory open.
type Store struct {
	log   *slog.Logger
	watch Watch
	disk
	roots     *roots
	collector *collector
	writing   sync.Mutex // one change of records and catalog at a time

	registries *registry.Client
	pulls      *flights
	spools     spools
	loads      keylock.Set         // one Load at a time, under the key "": archives use the same names of ingests
	documents  *semaphore.Weighted // bytes of the documents that are being read

	pinnedNames atomic.Pointer[[]string]
	quarantined []Quarantined // by Open
}

// disk is the parts of the store that are on the disk.
type disk struct {
	blobs   *blob.Store
	layers  *layer.Store
	records records
}

// Quarantined is an image record that could not be used and was moved to the quarantine.
type Quarantined struct {
	// File is where the record is now, Reason why it could not be used.
	File, Reason string
}

// Open opens the store, makes missing directories, and removes what an interrupted process left
// half-made. It removes no layer; RemoveUnused does. A record that cannot be used is moved away
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
	d, err := openDisk(cfg.Root)
	if err != nil {
		return nil, fmt.Errorf("open image store %s: %w", cfg.Root, err)
	}
	s := &Store{
		log: cfg.Log, watch: cfg.Watch, disk: d, roots: newRoots(), pulls: newFlights(),
		registries: registry.NewClient(registry.Config{
			ConfigDir: cfg.RegistryConfigDir, Log: cfg.Log, Blobs: d.blobs,
			MaxDownloads: cfg.MaxDownloads, StallTimeout: cfg.StallTimeout,
		}),
		spools:    spools{dir: filepath.Join(cfg.Root, "layers"), idle: cfg.ArchiveIdle},
		documents: semaphore.NewWeighted(maxDocuments),
	}
	s.collector = &collector{log: s.log, roots: s.roots, blobs: s.blobs, layers: s.layers}
	return s, s.restore(ctx)
}

func openDisk(root string) (d disk, err error) {
	if d.layers, err = layer.Open(root); err != nil {
		return d, err
	}
	if d.records, err = openRecords(root); err != nil {
		return d, err
	}
	d.blobs, err = blob.Open(filepath.Join(root, "content"))
	return d, err
}

// SetRegistryConfigDir makes pulls that begin from now on read other directories.
func (s *Store) SetRegistryConfigDir(dirs string) { s.registries.SetConfigDir(dirs) }

// Close ends all pulls and waits for them. The store must not be used afterwards.
func (s *Store) Close() { s.pulls.close() }

// List returns all images, ordered by ID. It never waits.
func (s *Store) List() []*Image { return s.roots.catalog.Load().list() }

// Resolve finds an image by a name, full or familiar (busybox), by a name with digest, by its ID
// with or without "sha256:", or by an unambiguous prefix of the ID of at least 12 digits. It never
// waits.
func (s *Store) Resolve(ref string) (*Image, bool) {
	img := s.roots.catalog.Load().find(ref)
	return img, img != nil
}

// Quarantined returns the records that Open moved to the quarantine.
func (s *Store) Quarantined() []Quarantined { return slices.Clone(s.quarantined) }

// Unpacked returns the bytes of all unpacked layers, each counted once. It reads one directory and measures nothing.
func (d *disk) Unpacked() uint64 {
	bytes, _, _ := d.layers.Usage() // 0 if they cannot be listed
	return bytes
}

// Usage returns the bytes and inodes of layers and contents, downloads in progress included. It logs and skips a part
// that cannot be read.
func (s *Store) Usage() (bytes, inodes uint64) {
	for _, usage := range []func() (uint64, uint64, error){s.layers.Usage, s.blobs.Usage} {
		b, i, err := usage()
		if err != nil {
			s.log.Warn("the use of the image store could not be measured", "error", err)
		}
		bytes += b
		inodes += i
	}
	return bytes, inodes
}
