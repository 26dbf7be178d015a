package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// logBook remembers the log directories that pinfold run made: one symbolic link for each pod, whose name is the
// pod's ID and whose target is the directory. It lies beside the daemon's socket, where only root can write.
// Nothing that a pod carries (annotations, labels) could serve: those are written by tenants.
type logBook struct{ dir string }

func (b logBook) prepare() error {
	err := os.Mkdir(b.dir, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("remember the log directory: %w", err)
	}
	return nil
}

func (b logBook) remember(pod, dir string) error {
	if err := os.Symlink(dir, filepath.Join(b.dir, pod)); err != nil {
		return fmt.Errorf("remember the log directory of pod %s: %w", pod, err)
	}
	return nil
}

// remove removes the log of a pod, and does nothing for a pod that is not in the book.
func (b logBook) remove(pod string) error {
	book, err := os.OpenRoot(b.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("log directory of pod %s: %w", pod, err)
	}
	defer book.Close()
	dir, err := book.Readlink(pod)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = removeLog(dir)
	}
	if err == nil {
		err = book.Remove(pod)
	}
	if err != nil {
		return fmt.Errorf("log directory of pod %s: %w", pod, err)
	}
	// The last one takes the book along.
	if err := syscall.Rmdir(b.dir); err != nil && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("remove %s: %w", b.dir, err)
	}
	return nil
}

// removeLog removes from a log directory what pinfold run had made, and the directory if nothing else is in it.
// It may be repeated.
func removeLog(dir string) error {
	d, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	err = d.Remove(containerLog)
	_ = d.Close()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Not os.Remove, which would also remove a file of that name.
	if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, syscall.ENOENT) {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}
