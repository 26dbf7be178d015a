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
	"github.com/pinfold-run/pinfold/internal/tree"
)

// layers is the directory of unpacked layers.
type layers struct {
	dir string

	mu    sync.Mutex
	known map[string]layerInfo // by chain ID; what has been read or written of layer.json
}

// layerInfo is layer.json.
type layerInfo struct {
	Schema int    `json:"schema"`
	DiffID string `json:"diff_id"`
	// Size is what the layer takes on disk in bytes, Inodes how many of the file system's it uses.
	Size   uint64 `json:"size"`
	Inodes uint64 `json:"inodes"`
	MaxUID uint32 `json:"max_uid"`
	MaxGID uint32 `json:"max_gid"`
}

func newLayers(dir string) *layers { return &layers{dir: dir, known: map[string]layerInfo{}} }

// path is the directory of a layer; chain is a valid digest.
func (l *layers) path(chain string) string { return filepath.Join(l.dir, reference.FileName(chain)) }

// tree is the directory that overlay gets.
func (l *layers) tree(chain string) string { return filepath.Join(l.path(chain), "fs") }

// trees are the directories of a whole chain, topmost first, the order overlay and archive.WithParents want.
func (l *layers) trees(chain []string) []string {
	dirs := make([]string, 0, len(chain))
	for i := len(chain) - 1; i >= 0; i-- {
		dirs = append(dirs, l.tree(chain[i]))
	}
	return dirs
}

// exists: a layer is complete by having its name.
func (l *layers) exists(chain string) bool {
	fi, err := os.Lstat(l.tree(chain))
	return err == nil && fi.IsDir()
}

// list returns the chain IDs of all layers, with the time each was unpacked.
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

// info returns what is known of an existing layer. A lost layer.json is made good by looking at the files.
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
		if info, err = census(l.tree(chain)); err != nil {
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

// condemn takes a layer its name, which makes it not exist, and returns the directory that is left to delete.
func (l *layers) condemn(chain string) (string, error) {
	doomed := filepath.Join(l.dir, tempPrefix+"gone-"+reference.FileName(chain))
	// A condemned layer that could not be deleted may still be there.
	if err := tree.Remove(context.Background(), doomed); err != nil {
		return "", err
	}
	err := os.Rename(l.path(chain), doomed)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		// The directory of the layers has no room for a name. The layer's own has: it has never had many.
		doomed = l.path(chain)
		err = os.Rename(l.tree(chain), filepath.Join(doomed, "gone"))
	}
	if err != nil {
		return "", err
	}
	l.mu.Lock()
	delete(l.known, chain)
	l.mu.Unlock()
	return doomed, nil
}

// census counts what a tree takes. Hard links are counted once; owners of everything are seen, deletions too.
func census(tree string) (layerInfo, error) {
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
			return fmt.Errorf("%s: no owner known", path)
		}
		info.MaxUID, info.MaxGID = max(info.MaxUID, st.Uid), max(info.MaxGID, st.Gid)
		if st.Nlink > 1 && !d.IsDir() {
			if linked[st.Ino] {
				return nil
			}
			linked[st.Ino] = true
		}
		info.Inodes++
		info.Size += uint64(st.Blocks) * 512 // st_blocks counts 512-byte units whatever the file system (stat(2))
		return nil
	})
	return info, err
}

// settle makes a finished temporary directory a layer: after nil it survives a power cut.
func (l *layers) settle(temp, chain string, info layerInfo) error {
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
	// One syncfs instead of an fsync per file; since Linux 5.8 it reports errors of write-back too (syncfs(2)).
	err = unix.Syncfs(int(d.Fd()))
	if err = errors.Join(err, d.Close()); err != nil {
		return fmt.Errorf("flush layer: %w", err)
	}
	if err := os.Rename(temp, l.path(chain)); err != nil {
		return err
	}
	l.remember(chain, info)
	return syncDir(l.dir)
}
