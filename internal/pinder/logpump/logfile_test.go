package logpump

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/testroot"
)

// logPlace is what may be where a log is to be.
type logPlace struct {
	make func(dir string) error // puts it at dir/c/0.log
	says string                 // "": is a log
}

func logPlaces(outside string) map[string]logPlace {
	return map[string]logPlace{
		"nothing":        {func(string) error { return nil }, ""},
		"an older log":   {func(dir string) error { return os.WriteFile(dir+"/c/0.log", []byte("old\n"), 0o640) }, ""},
		"a FIFO":         {func(dir string) error { return unix.Mkfifo(dir+"/c/0.log", 0o600) }, "a FIFO"},
		"a socket":       {func(dir string) error { return unix.Mknod(dir+"/c/0.log", unix.S_IFSOCK|0o600, 0) }, "a socket"},
		"a directory":    {func(dir string) error { return os.Mkdir(dir+"/c/0.log", 0o755) }, "a directory"},
		"a link":         {func(dir string) error { return os.Symlink(outside+"/target", dir+"/c/0.log") }, "a symbolic link"},
		"a link to none": {func(dir string) error { return os.Symlink("nowhere", dir+"/c/0.log") }, "a symbolic link"},
		"a device": {func(dir string) error {
			return unix.Mknod(dir+"/c/0.log", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3)))
		}, "a device"},
		"a linked directory": {func(dir string) error {
			return errors.Join(os.Remove(dir+"/c"), os.Symlink(outside, dir+"/c"))
		}, "symbolic link"},
		"a linked directory inside": {func(dir string) error {
			return errors.Join(os.Remove(dir+"/c"), os.Mkdir(dir+"/d", 0o755), os.Symlink("d", dir+"/c"))
		}, "symbolic link"},
	}
}

// The log's name is in a directory that other programs of the node write to, too: what they put there is neither waited
// for nor followed.
func TestOnlyARegularFileBelowTheLogDirectoryIsALog(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, c := range logPlaces(outside) {
		t.Run(name, func(t *testing.T) {
			if name == "a device" {
				testroot.Need(t)
			}
			real := t.TempDir()
			dir := filepath.Join(t.TempDir(), "linked") // as an operator does it who has logs elsewhere
			if err := errors.Join(os.Symlink(real, dir), os.Mkdir(dir+"/c", 0o755), c.make(dir)); err != nil {
				t.Fatal(err)
			}
			type result struct {
				log File
				err error
			}
			got := make(chan result, 1)
			go func() {
				log, _, err := Open(dir, dir+"/c/0.log")
				got <- result{log, err}
			}()
			select {
			case r := <-got:
				if r.log >= 0 {
					_ = unix.Close(int(r.log))
				}
				if c.says == "" && r.err != nil {
					t.Error(r.err)
				}
				if c.says != "" && (!errors.Is(r.err, ErrPlace) || !strings.Contains(r.err.Error(), c.says) ||
					!strings.Contains(r.err.Error(), dir+"/c/0.log")) {
					t.Errorf("%v; want the path and %q", r.err, c.says)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("waits")
			}
			if left, _ := os.ReadDir(outside); len(left) > 0 {
				t.Errorf("outside there is %v", left)
			}
		})
	}
	for _, path := range []string{outside + "/0.log", outside + "/../x"} {
		if _, _, err := Open(filepath.Join(outside, "below"), path); !errors.Is(err, ErrPlace) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestANewLogsModeIsNotTheUmasks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	log, created, err := Open("", path)
	if err != nil || !created {
		t.Fatal(created, err)
	}
	_ = unix.Close(int(log))
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != logMode {
		t.Errorf("%v %v", info.Mode(), err)
	}
}
