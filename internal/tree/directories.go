package tree

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"
)

// RemoveDirectories removes the tree of directories at path, of any depth, from below, by rmdir(2) alone. It is for
// groups, whose files go with them. What is gone already is removed.
func RemoveDirectories(path string) error {
	err := (&Walk{
		Visit: func(*Entry) error { return nil },
		Left: func(e *Entry) error {
			if err := e.Remove(); err != nil && !errors.Is(err, unix.ENOENT) {
				return e.Wrap(err)
			}
			return nil
		},
	}).Run(context.Background(), path)
	if err == nil {
		err = unix.Rmdir(path)
	}
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
