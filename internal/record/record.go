// Package record keeps small durable documents, one file each, below one root directory.
//
// There is no database and no lock that two documents share. A document is replaced by rename, so a
// reader sees a whole old or a whole new one. Its first version, the intent, is also kept in a file
// of its own and made durable by fsync: what an intent owes survives a power cut even if every later
// version, which is never synced, is lost or torn.
//
// A document is wrapped in an envelope with the schema version and the boot ID of the kernel it was
// written under: processes, mounts and namespaces named by a document of another boot are gone.
package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Schema is the version of the documents this program writes. Readers accept this one and the ones before it.
const Schema = 1

const (
	currentSuffix = ".json"
	intentSuffix  = ".intent"
	tempPrefix    = ".tmp-"
)

// Store is a directory of documents. Its methods may be called at any time by any goroutine; two
// writes of the same key must be ordered by the caller.
type Store struct {
	root string
	boot string
}

type envelope struct {
	Schema int             `json:"schema"`
	Boot   string          `json:"boot"`
	Body   json.RawMessage `json:"body"`
}

// Entry says what was found for a key.
type Entry struct {
	// SameBoot is true when the document was written under the running kernel's boot.
	SameBoot bool
	// FromIntent is true when the current version was unreadable and the intent stood in for it.
	FromIntent bool
}

// Open returns the store at root, making the directory (0700) if needed. boot identifies the running
// boot; see BootID.
func Open(root, boot string) (*Store, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("record: open %s: %w", root, err)
	}
	return &Store{root: root, boot: boot}, nil
}

// Intend writes the first version of a document: visible to a restarted process when Intend returns,
// durable against a power cut when the returned function has returned nil. That function must be
// called exactly once, and from any goroutine.
func (s *Store) Intend(key string, body any) (durable func() error, err error) {
	path := s.path(key, intentSuffix)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("record: %s: %w", key, err)
	}
	f, err := s.replace(path, body)
	if err != nil {
		return nil, fmt.Errorf("record: intend %s: %w", key, err)
	}
	if err := s.Put(key, body); err != nil {
		f.Close()
		return nil, err
	}
	return func() error {
		defer f.Close()
		if err := f.Sync(); err != nil {
			return fmt.Errorf("record: sync %s: %w", key, err)
		}
		return s.syncParents(filepath.Dir(path))
	}, nil
}

// Put replaces the current version of a document. It is not synced.
func (s *Store) Put(key string, body any) error {
	f, err := s.replace(s.path(key, currentSuffix), body)
	if err != nil {
		return fmt.Errorf("record: put %s: %w", key, err)
	}
	return f.Close()
}

// Get reads a document into body: the current version, or the intent where the current one cannot be
// read. The error is fs.ErrNotExist when there is neither.
func (s *Store) Get(key string, body any) (Entry, error) {
	entry, err := s.read(s.path(key, currentSuffix), body)
	if err == nil {
		return entry, nil
	}
	entry, intentErr := s.read(s.path(key, intentSuffix), body)
	if intentErr == nil {
		entry.FromIntent = true
		return entry, nil
	}
	return Entry{}, fmt.Errorf("record: get %s: %w", key, errors.Join(err, intentErr))
}

// Delete removes a document: the intent last, since it is the owner. A missing one is fine.
func (s *Store) Delete(key string) error {
	for _, suffix := range []string{currentSuffix, intentSuffix} {
		if err := os.Remove(s.path(key, suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("record: delete %s: %w", key, err)
		}
	}
	return nil
}

// Keys lists the documents and subdirectories directly below dir, by name, sorted. A missing
// directory has none.
func (s *Store) Keys(dir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.root, dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("record: list %s: %w", dir, err)
	}
	var names []string
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") {
			continue
		}
		if !e.IsDir() {
			name = strings.TrimSuffix(strings.TrimSuffix(name, currentSuffix), intentSuffix)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Quarantine moves a document that cannot be read to <root>/quarantine, where an operator finds it,
// and returns where it went.
func (s *Store) Quarantine(key string) (string, error) {
	to := filepath.Join(s.root, "quarantine", strings.ReplaceAll(key, "/", "-"))
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return "", fmt.Errorf("record: quarantine %s: %w", key, err)
	}
	for _, suffix := range []string{currentSuffix, intentSuffix} {
		if err := os.Rename(s.path(key, suffix), to+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("record: quarantine %s: %w", key, err)
		}
	}
	return to + currentSuffix, nil
}

func (s *Store) path(key, suffix string) string { return filepath.Join(s.root, key+suffix) }

func (s *Store) read(path string, body any) (Entry, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Entry{}, err
	}
	var env envelope
	if err := json.Unmarshal(data, &env); err != nil {
		return Entry{}, fmt.Errorf("%s: %w", path, err)
	}
	if env.Schema < 1 || env.Schema > Schema {
		return Entry{}, fmt.Errorf("%s: schema %d is not one of 1..%d", path, env.Schema, Schema)
	}
	if err := json.Unmarshal(env.Body, body); err != nil {
		return Entry{}, fmt.Errorf("%s: %w", path, err)
	}
	return Entry{SameBoot: env.Boot == s.boot}, nil
}

// replace writes a new version beside the old one and renames it over it. The file is returned open
// so that the caller may sync it.
func (s *Store) replace(path string, body any) (*os.File, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(envelope{Schema: Schema, Boot: s.boot, Body: raw})
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(data)
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		f.Close()
		return nil, errors.Join(err, ignoreMissing(os.Remove(f.Name())))
	}
	return f, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// syncParents syncs dir and every directory above it up to the root, any of which may be new.
func (s *Store) syncParents(dir string) error {
	for {
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("record: sync %s: %w", dir, err)
		}
		err = errors.Join(unix.Fsync(fd), unix.Close(fd))
		if err != nil {
			return fmt.Errorf("record: sync %s: %w", dir, err)
		}
		if dir == s.root || len(dir) <= len(s.root) {
			return nil
		}
		dir = filepath.Dir(dir)
	}
}
