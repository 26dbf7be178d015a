package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// logBook lists the log directories that pinfold run made. Each pod has a symbolic link: its name
// is the pod's ID, its target is the directory. The links lie beside the daemon's socket, where
// only root can write. They are not kept in annotations or labels of the pod, because tenants write
// those.
type logBook struct{ dir string }

func (b logBook) prepare() error {
	err := os.Mkdir(b.dir, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("remember the log directory: %w", err)
	}
	return nil
}

func (b logBook) remember(pod, dir string) error {
	err := os.Symlink(dir, filepath.Join(b.dir, pod))
	if errors.Is(err, fs.ErrNotExist) { // another command has tidied meanwhile
		if err = b.prepare(); err == nil {
			err = os.Symlink(dir, filepath.Join(b.dir, pod))
		}
	}
	if err != nil {
		return fmt.Errorf("remember the log directory of pod %s: %w", pod, err)
	}
	return nil
}

// remove removes the log of a pod. A pod without an entry has no log to remove.
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
	return b.tidy()
}

// tidy removes the directory of links when the last link is gone.
func (b logBook) tidy() error {
	if err := syscall.Rmdir(b.dir); err != nil && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("remove %s: %w", b.dir, err)
	}
	return nil
}

// removeLog removes the log file that pinfold run made, then the directory if it is empty. A second
// call does no harm.
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
	// os.Remove would also remove a file of that name.
	if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, syscall.ENOENT) {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}
