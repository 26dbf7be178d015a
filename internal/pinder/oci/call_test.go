package oci

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A runtime, or a hook of it, that prints without end fills no memory, and what it said first is there.
func TestWhatARuntimePrintsIsBounded(t *testing.T) {
	fd, err := unix.MemfdCreate("output", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	text := strings.Repeat("0123456789abcde\n", maxPrinted/16)
	stop := keepBounded(fd)
	for range 100 {
		if _, err := unix.Write(fd, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	var st unix.Stat_t
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if err := unix.Fstat(fd, &st); err != nil || st.Blocks*512 <= 2*maxPrinted || time.Now().After(end) {
			break
		}
	}
	stop()
	if st.Blocks*512 > 2*maxPrinted {
		t.Errorf("%d bytes are in memory", st.Blocks*512)
	}
	if _, err := unix.Write(fd, []byte("on")); err != nil {
		t.Errorf("what a runtime prints is refused: %v", err)
	}
	if got := readOutput(fd); got != text {
		t.Errorf("%d bytes are read, %d were kept", len(got), len(text))
	}
	log := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(log, []byte(strings.Repeat(text, 8)+"the end"), 0o600); err != nil {
		t.Fatal(err)
	}
	if end, err := readEnd(log); err != nil || len(end) != maxPrinted || !strings.HasSuffix(string(end), "\nthe end") {
		t.Errorf("%d bytes of the log, %v", len(end), err)
	}
}
