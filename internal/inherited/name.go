package inherited

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Name gives this process and all its threads a name for ps(1) and the like. A program has that of the file by which
// it was executed (execve(2)): "exe", if that was /proc/self/exe.
func Name(name string) error {
	const tasks = "/proc/self/task/"
	// Threads have the names of those that made them, so a second look finds at most what the first overlooked.
	for range 2 {
		threads, err := os.ReadDir(tasks)
		if err != nil {
			return err
		}
		for _, thread := range threads {
			err := os.WriteFile(tasks+thread.Name()+"/comm", []byte(name), 0)
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESRCH) { // it has ended
				return err
			}
		}
	}
	return nil
}
