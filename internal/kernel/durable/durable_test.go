package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestAFileIsReplacedAsAWhole(t *testing.T) {
	for name, replace := range map[string]func(string, []byte) error{"write": Write, "replace": Replace} {
		path := filepath.Join(t.TempDir(), "file")
		for _, content := range []string{"first", "", "the second, which is longer"} {
			if err := replace(path, []byte(content)); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != content {
				t.Errorf("%s: %q, %v; want %q", name, got, err, content)
			}
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
		alone(t, path)
	}
}

func TestAFailureLeavesTheOldFileAndNothingElse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := Write(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	err := Fill(path, func(f *os.File) error {
		_, _ = f.WriteString("half of")
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("the error is %v", err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "old" {
		t.Errorf("%q, %v", got, err)
	}
	alone(t, path)
}

func TestAMissingDirectoryIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing", "file")
	if err := Replace(path, nil); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "missing") {
		t.Errorf("the error is %v", err)
	}
}

func TestWritersOfOneFileDoNotMixTheirContent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	var all sync.WaitGroup
	for _, letter := range []string{"a", "b", "c", "d"} {
		all.Go(func() {
			for range 50 {
				if err := Write(path, []byte(strings.Repeat(letter, 9999))); err != nil {
					t.Error(err)
				}
				got, err := os.ReadFile(path)
				if err != nil || len(got) != 9999 || strings.Trim(string(got), string(got[:1])) != "" {
					t.Errorf("%d bytes, %v", len(got), err)
				}
			}
		})
	}
	all.Wait()
	alone(t, path)
}

func TestDirectoriesAreSyncedUpToTheTop(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "a", "b")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := SyncDirs(dir, top); err != nil {
		t.Error(err)
	}
	if err := SyncDirs(filepath.Join(dir, "missing"), top); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the error is %v", err)
	}
}

func TestTemporaryFilesOfACrashAreRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := errors.Join(Write(path, nil), os.WriteFile(filepath.Join(filepath.Dir(path), TempPrefix+"1"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := RemoveTemporary(filepath.Dir(path)); err != nil {
		t.Error(err)
	}
	alone(t, path)
}

// alone fails if anything is beside the file.
func alone(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 || entries[0].Name() != filepath.Base(path) {
		t.Errorf("%v, %v", entries, err)
	}
}
