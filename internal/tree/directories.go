package tree

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"
)

// RemoveDirectories removes the tree of directories at path, of any depth, with rmdir(2) alone,
// deepest first. It is for cgroups, whose files vanish with them. It is no error if something is
// removed already.
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
