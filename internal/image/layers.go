package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/image/reference"
	"github.com/pinfold-run/pinfold/internal/kernel/durable"
	"github.com/pinfold-run/pinfold/internal/tree"
)

// layers is the directory of unpacked layers.
type layers struct {
	dir string

	mu    sync.Mutex
	known map[string]layerInfo // by chain ID: the layer.json that were read or written
}

// layerInfo is layer.json.
type layerInfo struct {
	Schema int    `json:"schema"`
	DiffID string `json:"diff_id"`
	// Size is how many bytes the layer uses on disk, Inodes how many inodes.
	Size   uint64 `json:"size"`
	Inodes uint64 `json:"inodes"`
	MaxUID uint32 `json:"max_uid"`
	MaxGID uint32 `json:"max_gid"`
}

func newLayers(dir string) *layers { return &layers{dir: dir, known: map[string]layerInfo{}} }

// path is the directory of a layer; chain is a valid digest.
func (l *layers) path(chain string) string { return filepath.Join(l.dir, reference.FileName(chain)) }

// tree is the directory that overlay mounts.
func (l *layers) tree(chain string) string { return filepath.Join(l.path(chain), "fs") }

// trees are the directories of a whole chain, topmost first, as overlay and archive.WithParents
// expect them.
func (l *layers) trees(chain []string) []string {
	dirs := make([]string, 0, len(chain))
	for i := len(chain) - 1; i >= 0; i-- {
		dirs = append(dirs, l.tree(chain[i]))
	}
	return dirs
}

// exists reports whether the layer has its name. Only complete layers have one.
func (l *layers) exists(chain string) bool {
	fi, err := os.Lstat(l.tree(chain))
	return err == nil && fi.IsDir()
}

// list returns the chain IDs of all layers, with the time when each was unpacked.
func (l *layers) list() (map[string]time.Time, error) {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, fmt.Errorf("list layers: %w", err)
	}
	found := map[string]time.Time{}
	for _, e := range entries {
		chain := reference.FromFileName(e.Name())
		if strings.HasPrefix(e.Name(), tempPrefix) || reference.CheckDigest(digest.Digest(chain)) != nil {
			continue
		}
		if fi, err := e.Info(); err == nil {
			found[chain] = fi.ModTime()
		}
	}
	return found, nil
}

// info returns the layer.json of an existing layer. If it is missing, the files are measured again.
func (l *layers) info(chain string) (layerInfo, error) {
	l.mu.Lock()
	info, ok := l.known[chain]
	l.mu.Unlock()
	if ok {
		return info, nil
	}
	data, err := os.ReadFile(filepath.Join(l.path(chain), "layer.json"))
	if err == nil {
		err = json.Unmarshal(data, &info)
	}
	if err != nil {
		if info, err = measure(l.tree(chain)); err != nil {
			return layerInfo{}, fmt.Errorf("layer %s: %w", chain, err)
		}
	}
	l.remember(chain, info)
	return info, nil
}

func (l *layers) remember(chain string, info layerInfo) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known[chain] = info
}

// unname renames a layer, so that it does not exist any more. It returns the directory that is left
// to delete.
func (l *layers) unname(chain string) (string, error) {
	unnamed := filepath.Join(l.dir, tempPrefix+"gone-"+reference.FileName(chain))
	// An earlier directory of that name may be left, if it could not be deleted.
	if err := tree.Remove(context.Background(), unnamed); err != nil {
		return "", err
	}
	err := os.Rename(l.path(chain), unnamed)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		// The directory of the layers has no room for another name. The layer's own directory has,
		// since it has few entries.
		unnamed = l.path(chain)
		err = os.Rename(l.tree(chain), filepath.Join(unnamed, "gone"))
	}
	if err != nil {
		return "", err
	}
	l.mu.Lock()
	delete(l.known, chain)
	l.mu.Unlock()
	return unnamed, nil
}

// measure counts the bytes and inodes of a tree. It counts hard links once. It sees the owners of
// all files, deletions included.
func measure(tree string) (layerInfo, error) {
	info := layerInfo{Schema: 1}
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
func (l *layers) commit(temp, chain string, info layerInfo) error {
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
	if err := os.Rename(temp, l.path(chain)); err != nil {
		return err
	}
	l.remember(chain, info)
	return durable.SyncDir(l.dir)
}
