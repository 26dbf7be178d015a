// Package record keeps small durable documents, one file each, below one root directory.
//
// There is no database, and no lock that two documents share. A rename replaces a document, so a
// reader sees a whole old or a whole new version. The first version, the intent, also has a file of
// its own, which is synced to the disk. Later versions are never synced. A power cut may lose or
// tear them; the intent survives, and with it the list of what has to be undone.
//
// Each document is wrapped in an envelope with the schema version and the boot ID. Processes,
// mounts and namespaces that a document of another boot names do not exist any more.
package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pinfold-run/pinfold/internal/kernel/durable"
)

// Schema is the version of the documents that this program writes. Readers accept it and all
// earlier ones.
const Schema = 1

const (
	currentSuffix = ".json"
	intentSuffix  = ".intent"
)

// Store is a directory of documents. Any goroutine may call its methods at any time. The caller
// orders two writes of the same key.
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
	// SameBoot is true if the document was written since the last boot.
	SameBoot bool
	// FromIntent is true if the current version could not be read and the intent was read instead.
	FromIntent bool
}

// Open returns the store at root. It makes the directory (0700) if needed. boot identifies the
// running boot; see BootID.
func Open(root, boot string) (*Store, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("record: open %s: %w", root, err)
	}
	return &Store{root: root, boot: boot}, nil
}

// Intend writes the first version of a document. When Intend returns, a restarted process can read
// it. When the returned function has returned nil, it survives a power cut. Call that function
// exactly once, from any goroutine.
func (s *Store) Intend(key string, body any) (sync func() error, err error) {
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
		if err := durable.SyncDirs(filepath.Dir(path), s.root); err != nil {
			return fmt.Errorf("record: %w", err)
		}
		return nil
	}, nil
}

// Put replaces the current version of a document. It does not sync.
func (s *Store) Put(key string, body any) error {
	f, err := s.replace(s.path(key, currentSuffix), body)
	if err != nil {
		return fmt.Errorf("record: put %s: %w", key, err)
	}
	return f.Close()
}

// Get reads a document into body: the current version, or the intent if the current version cannot
// be read. The error is fs.ErrNotExist if there is neither.
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

// Remove removes a document. The intent is removed last, since it owns the rest. A missing document
// is not an error.
func (s *Store) Remove(key string) error {
	for _, suffix := range []string{currentSuffix, intentSuffix} {
		if err := os.Remove(s.path(key, suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("record: remove %s: %w", key, err)
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

// Quarantine moves a document that cannot be read to <root>/quarantine, for the operator. It
// returns the new path.
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
	env, err := unseal(data)
	if err != nil {
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

// replace writes a new version beside the old one and renames it over it. The returned file is
// open, so that the caller may sync it.
func (s *Store) replace(path string, body any) (*os.File, error) {
	data, err := s.seal(body)
	if err != nil {
		return nil, err
	}
	return durable.FillOpen(path, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}

// The text of an envelope around its boot ID and body, as this program writes it.
const (
	beforeBoot = `{"schema":1,"boot":`
	beforeBody = `,"body":`
	afterBody  = `}`
)

// seal puts a document into its envelope. The JSON package would check and copy the body once more.
func (s *Store) seal(body any) ([]byte, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	boot, err := json.Marshal(s.boot)
	if err != nil {
		return nil, err
	}
	return slices.Concat([]byte(beforeBoot), boot, []byte(beforeBody), raw, []byte(afterBody)), nil
}

// unseal is the reverse of seal. An envelope that begins or ends in another way is read by the JSON package. The body is
// not checked here: whoever decodes it does that.
func unseal(data []byte) (envelope, error) {
	rest, sealed := bytes.CutPrefix(data, []byte(beforeBoot))
	boot, rest, found := bytes.Cut(rest, []byte(beforeBody))
	body, whole := bytes.CutSuffix(rest, []byte(afterBody))
	if sealed && found && whole {
		var env envelope
		if err := json.Unmarshal(boot, &env.Boot); err == nil {
			env.Schema, env.Body = Schema, body
			return env, nil
		}
	}
	var env envelope
	err := json.Unmarshal(data, &env)
	return env, err
}
