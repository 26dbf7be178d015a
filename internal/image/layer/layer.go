// Package layer unpacks layers, one directory for each chain ID, which all images share.
package layer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/image/keylock"
	"github.com/pinfold-run/pinfold/internal/image/reference"
	"github.com/pinfold-run/pinfold/internal/kernel/durable"
	"github.com/pinfold-run/pinfold/internal/tree"
)

// Store is the directory of unpacked layers.
type Store struct {
	dir   string
	empty string // for an image without layers

	locks keylock.Set   // by chain ID
	slots chan struct{} // of layers being unpacked

	mu    sync.Mutex
	known map[string]Info // by chain ID: the layer.json that were read or written
}

// Info is layer.json.
type Info struct {
	Schema int    `json:"schema"`
	DiffID string `json:"diff_id"`
	// Size is how many bytes the layer uses on disk, Inodes how many inodes.
	Size   uint64 `json:"size"`
	Inodes uint64 `json:"inodes"`
	MaxUID uint32 `json:"max_uid"`
	MaxGID uint32 `json:"max_gid"`
}

// Open opens the layers below root, and removes what an interrupted process left half-made.
func Open(root string) (*Store, error) {
	s := &Store{
		dir: filepath.Join(root, "layers"), empty: filepath.Join(root, "empty"), known: map[string]Info{},
		slots: make(chan struct{}, runtime.GOMAXPROCS(0)),
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	// This directory becomes the container's root. The umask must not change its mode.
	if err := errors.Join(os.MkdirAll(s.empty, 0o755), os.Chmod(s.empty, 0o755)); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(s.dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), durable.TempPrefix) {
			err = errors.Join(err, tree.Remove(context.Background(), filepath.Join(s.dir, e.Name())))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("remove leftovers: %w", err)
	}
	return s, nil
}

// Lock waits for the lock of a layer, or for the end of ctx. The holder alone unpacks it.
func (s *Store) Lock(ctx context.Context, chain string) (unlock func(), err error) {
	return s.locks.Lock(ctx, chain)
}

// Roots are the directories that a container's root is made of, topmost first.
func (s *Store) Roots(chain []string) []string {
	if len(chain) == 0 {
		return []string{s.empty}
	}
	return s.trees(chain)
}

// Usage returns the bytes and inodes that all layers take.
func (s *Store) Usage() (bytes, inodes uint64, err error) {
	found, err := s.List()
	for chain := range found {
		info, err := s.Info(chain)
		if err != nil {
			continue // removed meanwhile
		}
		bytes += info.Size
		inodes += info.Inodes
	}
	return bytes, inodes, err
}

// path is the directory of a layer; chain is a valid digest.
func (s *Store) path(chain string) string { return filepath.Join(s.dir, reference.FileName(chain)) }

// tree is the directory that overlay mounts.
func (s *Store) tree(chain string) string { return filepath.Join(s.path(chain), "fs") }

// trees are the directories of a whole chain, topmost first, as overlay expects them.
func (s *Store) trees(chain []string) []string {
	dirs := make([]string, 0, len(chain))
	for i := len(chain) - 1; i >= 0; i-- {
		dirs = append(dirs, s.tree(chain[i]))
	}
	return dirs
}

// Exists reports whether the layer has its name. Only complete layers have one.
func (s *Store) Exists(chain string) bool {
	fi, err := os.Lstat(s.tree(chain))
	return err == nil && fi.IsDir()
}

// List returns the chain IDs of all layers, with the time when each was unpacked.
func (s *Store) List() (map[string]time.Time, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list layers: %w", err)
	}
	found := map[string]time.Time{}
	for _, e := range entries {
		chain := reference.FromFileName(e.Name())
		if strings.HasPrefix(e.Name(), durable.TempPrefix) || reference.CheckDigest(digest.Digest(chain)) != nil {
			continue
		}
		if fi, err := e.Info(); err == nil {
			found[chain] = fi.ModTime()
		}
	}
	return found, nil
}

// Info returns the layer.json of an existing layer. If it is missing, the files are measured again.
func (s *Store) Info(chain string) (Info, error) {
	s.mu.Lock()
	info, ok := s.known[chain]
	s.mu.Unlock()
	if ok {
		return info, nil
	}
	data, err := os.ReadFile(filepath.Join(s.path(chain), "layer.json"))
	if err == nil {
		err = json.Unmarshal(data, &info)
	}
	if err != nil {
		if info, err = measure(s.tree(chain)); err != nil {
			return Info{}, fmt.Errorf("layer %s: %w", chain, err)
		}
	}
	s.remember(chain, info)
	return info, nil
}

func (s *Store) remember(chain string, info Info) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[chain] = info
}

// Unname renames a layer, so that it does not exist any more. It returns the directory that is left
// to remove.
func (s *Store) Unname(chain string) (string, error) {
	unnamed := filepath.Join(s.dir, durable.TempPrefix+"gone-"+reference.FileName(chain))
	// An earlier directory of that name may be left, if it could not be removed.
	if err := tree.Remove(context.Background(), unnamed); err != nil {
		return "", err
	}
	err := os.Rename(s.path(chain), unnamed)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		// The directory of the layers has no room for another name. The layer's own directory has,
		// since it has few entries.
		unnamed = s.path(chain)
		err = os.Rename(s.tree(chain), filepath.Join(unnamed, "gone"))
	}
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	delete(s.known, chain)
	s.mu.Unlock()
	return unnamed, nil
}

// measure counts the bytes and inodes of a tree. It counts hard links once. It sees the owners of
// all files, deletions included.
func measure(tree string) (Info, error) {
	info := Info{Schema: 1}
	linked := map[uint64]bool{}
	err := filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("%s: the owner is unknown", path)
		}
		info.MaxUID, info.MaxGID = max(info.MaxUID, st.Uid), max(info.MaxGID, st.Gid)
		if st.Nlink > 1 && !d.IsDir() {
			if linked[st.Ino] {
				return nil
			}
			linked[st.Ino] = true
		}
		info.Inodes++
		info.Size += uint64(st.Blocks) * 512 // st_blocks counts units of 512 bytes on every file system (stat(2))
		return nil
	})
	return info, err
}

// commit makes a layer of a finished temporary directory. After nil it survives a power cut.
func (s *Store) commit(temp, chain string, info Info) error {
	data, err := json.Marshal(info)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(temp, "layer.json"), data, 0o600); err != nil {
		return err
	}
	d, err := os.Open(temp)
	if err != nil {
		return err
	}
	// One syncfs, not an fsync for each file. Since Linux 5.8 it also reports errors of write-back
	// (syncfs(2)).
	err = unix.Syncfs(int(d.Fd()))
	if err = errors.Join(err, d.Close()); err != nil {
		return fmt.Errorf("flush layer: %w", err)
	}
	if err := os.Rename(temp, s.path(chain)); err != nil {
		return err
	}
	s.remember(chain, info)
	return durable.SyncDir(s.dir)
}
