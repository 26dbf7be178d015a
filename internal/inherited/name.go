package inherited

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Name names this process and all its threads, for ps(1) and the like. By default a program has the
// name of the file it was executed from (execve(2)): "exe" if that was /proc/self/exe.
func Name(name string) error {
	const tasks = "/proc/self/task/"
	// A new thread has the name of the thread that made it. The second pass finds what the first
	// one missed.
	for range 2 {
		threads, err := os.ReadDir(tasks)
		if err != nil {
			return err
		}
		for _, thread := range threads {
			err := os.WriteFile(tasks+thread.Name()+"/comm", []byte(name), 0)
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESRCH) { // the thread has ended
				return err
			}
		}
	}
	return nil
}
