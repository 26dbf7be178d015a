package regular

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestOnlyRegularFilesAreReadAndNothingIsWaitedFor(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(
		os.WriteFile(path("file"), []byte("12345"), 0o600),
		os.Symlink("file", path("link")),
		os.Symlink("fifo", path("link-to-fifo")),
		unix.Mkfifo(path("fifo"), 0o600),
		unix.Mknod(path("socket"), unix.S_IFSOCK|0o600, 0),
	); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		err  error
		says string
	}{
		{path("file"), nil, ""},
		{path("link"), nil, ""},
		{path("fifo"), ErrNotRegular, "a FIFO"},
		{path("link-to-fifo"), ErrNotRegular, "a FIFO"},
		{path("socket"), ErrNotRegular, "a socket"},
		{dir, ErrNotRegular, "a directory"},
		{"/dev/zero", ErrNotRegular, "a device"},
		{path("none"), fs.ErrNotExist, ""},
	} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			data, err := Read(c.path, 5)
			if !errors.Is(err, c.err) || err == nil && string(data) != "12345" {
				t.Errorf("%s: %q, %v", c.path, data, err)
			}
			if err != nil && (!strings.Contains(err.Error(), c.path) || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("%q does not say %s and %s", err, c.path, c.says)
			}
			if got := Check(c.path); errors.Is(got, ErrNotRegular) != errors.Is(c.err, ErrNotRegular) {
				t.Errorf("Check %s: %v", c.path, got)
			}
		}()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: waits", c.path)
		}
	}
	if _, err := Read(path("file"), 4); !errors.Is(err, ErrTooLarge) {
		t.Errorf("beyond the limit: %v", err)
	}
}
