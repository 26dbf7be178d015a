// Package goroutines writes what all goroutines of this program do to a file, when an operator asks
// for it with a signal. The program goes on.
package goroutines

import (
	"bytes"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"
)

const (
	// maxDump limits one file, in bytes.
	maxDump = 16 << 20
	// maxFiles is how many files of one program are kept.
	maxFiles = 4
)

// OnSignal catches SIGUSR1 from now on. Each time it writes a file <name>-<time>.goroutines in the
// directory, which need not exist yet, and calls wrote with its path or the error.
func OnSignal(dir, name string, wrote func(path string, err error)) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	go func() {
		for range signals {
			wrote(write(dir, name, time.Now()))
		}
	}()
}

// write writes a file that only root can read, and removes the oldest ones.
func write(dir, name string, now time.Time) (string, error) {
	path := filepath.Join(dir, name+"-"+now.UTC().Format("20060102T150405.000000")+".goroutines")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return path, err
	}
	_, err = f.Write(stacks())
	err = errors.Join(err, f.Close())
	all, globErr := filepath.Glob(filepath.Join(dir, name+"-*.goroutines"))
	slices.Sort(all) // by time
	for len(all) > maxFiles {
		err = errors.Join(err, os.Remove(all[0]))
		all = all[1:]
	}
	return path, errors.Join(err, globErr)
}

func stacks() []byte {
	for size := 1 << 20; ; size *= 4 {
		text := make([]byte, size)
		n := runtime.Stack(text, true)
		if n < size {
			return text[:n]
		}
		if size >= maxDump {
			return append(bytes.TrimRight(text, "\n"), "\n\n… there are more goroutines\n"...)
		}
	}
}
