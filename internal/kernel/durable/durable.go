// Package durable replaces files as a whole: a reader sees all of the old content or all of the new. Write leaves it at
// that. Replace also syncs, so that the new content survives a power cut. There is no other writer of this kind in the
// program. It uses the standard library alone, since pinder links it.
//
// The new content is written to a temporary file beside the old one, whose name begins with TempPrefix. A crash may
// leave that file. Two writers of one file at the same time do no harm; one of them wins.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// TempPrefix begins the names of temporary files.
const TempPrefix = ".tmp-"

// Write replaces the file at path, without a sync. Only root may read the new one.
func Write(path string, data []byte) error {
	return Fill(path, write(data))
}

// Replace replaces the file at path. When it returns nil, the new content and its name survive a power cut. Only root
// may read the new file.
func Replace(path string, data []byte) error {
	err := Fill(path, func(f *os.File) error {
		return errors.Join(write(data)(f), f.Sync())
	})
	if err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

func write(data []byte) func(*os.File) error {
	return func(f *os.File) error {
		_, err := f.Write(data)
		return err
	}
}

// Fill is Write with a function that writes the content, and sets another mode if need be. If it fails, the file at
// path stays as it was.
func Fill(path string, content func(*os.File) error) error {
	_, err := FillOpen(path, func(f *os.File) error {
		return errors.Join(content(f), f.Close()) // some file systems report a failed write only here
	})
	return err
}

// FillOpen is Fill, and returns the new file open, so that the caller can sync it later.
func FillOpen(path string, content func(*os.File) error) (*os.File, error) {
	f, err := os.CreateTemp(filepath.Dir(path), TempPrefix)
	if err != nil {
		return nil, err
	}
	err = content(f)
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		return f, nil
	}
	_ = f.Close() // the first error is the one that counts
	if removeErr := os.Remove(f.Name()); !errors.Is(removeErr, fs.ErrNotExist) {
		err = errors.Join(err, removeErr)
	}
	return nil, err
}

// SyncDir makes the names in a directory survive a power cut.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// SyncDirs is SyncDir of dir and of every directory above it up to top.
func SyncDirs(dir, top string) error {
	for ; ; dir = filepath.Dir(dir) {
		if err := SyncDir(dir); err != nil {
			return fmt.Errorf("sync %s: %w", dir, err)
		}
		if len(dir) <= len(top) {
			return nil
		}
	}
}

// RemoveTemporary removes the temporary files that crashed writers have left in a directory. No writer may be at work
// there.
func RemoveTemporary(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), TempPrefix) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}
