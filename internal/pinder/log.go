package pinder

import (
	"fmt"
	"os"
	"time"
)

// logf writes one line about pinder itself to standard error, which is
// <state>/pinder.log. It must be used sparingly: nothing rotates that file.
func logf(format string, args ...any) {
	_, _ = fmt.Fprintf(os.Stderr, "%s pinder[%d]: %s\n",
		time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), os.Getpid(), fmt.Sprintf(format, args...))
}
