// Package ownlog writes the log of pinder itself: a few lines about what went wrong, on standard error.
package ownlog

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/logwriter"
)

// logLimit bounds <state>/pinder.log, in bytes: it lies in memory.
const logLimit = 1 << 20

// Printf writes one line about pinder itself to standard error, which is
// <state>/pinder.log, opened for appending. A file over the limit begins anew.
func Printf(format string, args ...any) {
	line := fmt.Sprintf("%s pinder[%d]: %s\n",
		time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), os.Getpid(), oneLine(fmt.Sprintf(format, args...)))
	if !appendBounded(os.Stderr, line, logLimit) {
		_, _ = otherLog().Write([]byte(line))
	}
}

// maxLine limits one line, in bytes.
const maxLine = 16 << 10

// oneLine escapes what could end a line or change a terminal: names and what runtimes print are in the
// log.
func oneLine(text string) string {
	var line strings.Builder
	for _, r := range text[:min(len(text), maxLine)] {
		switch {
		case r == utf8.RuneError || unicode.IsPrint(r):
			line.WriteRune(r)
		default:
			quoted := strconv.QuoteRuneToASCII(r)
			line.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return line.String()
}

// otherLog is where lines go when standard error is not a file: pinder may have been started with a pipe or a terminal that
// is not read.
var otherLog = sync.OnceValue(func() *logwriter.Writer { return logwriter.New(os.Stderr, nil) })

// appendBounded reports whether f is a regular file, and appends the line to it then.
func appendBounded(f *os.File, line string, limit int64) bool {
	var info unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &info); err != nil || info.Mode&unix.S_IFMT != unix.S_IFREG {
		return false
	}
	if info.Size+int64(len(line)) > limit {
		_ = f.Truncate(0)
	}
	_, _ = f.WriteString(line)
	return true
}
