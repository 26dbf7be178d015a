package pin

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/testroot"
)

// inode is that of the calling thread's network namespace.
func inode(t *testing.T) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		t.Error(err)
	}
	return st.Ino
}

// pinnedNets makes network namespaces and pins them, and says what they are.
func pinnedNets(t *testing.T, dir string, names ...string) (paths []string, inodes []uint64) {
	t.Helper()
	for _, name := range names {
		set, err := Create(nil, Net)
		if err != nil {
			t.Fatal(err)
		}
		defer set.Close()
		path := filepath.Join(dir, name)
		if err := set.Net.Pin(path); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := Unpin(path); err != nil {
				t.Error(err)
			}
		})
		_, ino := set.Net.ID()
		paths, inodes = append(paths, path), append(inodes, ino)
	}
	return paths, inodes
}

func TestATourVisitsEachNamespaceAndComesHome(t *testing.T) {
	testroot.Need(t)
	dir := t.TempDir()
	paths, want := pinnedNets(t, dir, "a", "b")
	empty, fifo := filepath.Join(dir, "empty"), filepath.Join(dir, "fifo")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	wrong := map[string]error{
		filepath.Join(dir, "none"): fs.ErrNotExist, "": fs.ErrNotExist, empty: ErrNotNamespace, fifo: ErrNotNamespace, "/proc/self/ns/uts": ErrNotNamespace,
	}
	home := inode(t)
	stops := []string{paths[0]}
	for path := range wrong {
		stops = append(stops, path)
	}
	stops = append(stops, paths[1], paths[0])
	visited := 0
	err := Tour(Net, stops, func(i int, err error) {
		if i != visited {
			t.Errorf("stop %d comes as number %d", i, visited)
		}
		visited++
		if why := wrong[stops[i]]; why != nil {
			if !errors.Is(err, why) {
				t.Errorf("%q: %v", stops[i], err)
			}
			return
		}
		place := 0
		if stops[i] == paths[1] {
			place = 1
		}
		if got := inode(t); err != nil || got != want[place] {
			t.Errorf("%q: %v, in %d instead of %d", stops[i], err, got, want[place])
		}
	})
	if err != nil || visited != len(stops) {
		t.Errorf("%d of %d stops: %v", visited, len(stops), err)
	}
	// The thread of the tour is one of the program's again.
	for range 64 {
		if got := inode(t); got != home {
			t.Errorf("a thread is in %d, and its home is %d", got, home)
		}
	}
	for _, kind := range []Kind{User, Mount, Net | IPC, 0} {
		if err := Tour(kind, nil, nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("a tour of %q: %v", kind, err)
		}
	}
}
