package pinder

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// logLimit bounds <state>/pinder.log, in bytes: it lies in memory.
const logLimit = 1 << 20

// logf writes one line about pinder itself to standard error, which is
// <state>/pinder.log, opened for appending. A file over the limit begins anew.
func logf(format string, args ...any) {
	line := fmt.Sprintf("%s pinder[%d]: %s\n",
		time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), os.Getpid(), fmt.Sprintf(format, args...))
	appendBounded(os.Stderr, line, logLimit)
}

func appendBounded(f *os.File, line string, limit int64) {
	var info unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &info); err == nil && info.Mode&unix.S_IFMT == unix.S_IFREG && info.Size+int64(len(line)) > limit {
		_ = f.Truncate(0)
	}
	_, _ = f.WriteString(line)
}
