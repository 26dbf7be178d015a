package registry

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/regular"
)

func TestCertificatesThatAreNoFilesAreNotWaitedFor(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 2)
	go func() {
		done <- checkCA(fifo)
		_, err := loadPair([2]string{fifo, ""})
		done <- err
	}()
	for range 2 {
		select {
		case err := <-done:
			if !errors.Is(err, regular.ErrNotRegular) {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("waits")
		}
	}
}
