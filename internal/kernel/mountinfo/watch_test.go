package mountinfo

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/testroot"
)

func TestAChangeOfTheMountTableIsAnotherNumberForEveryWatch(t *testing.T) {
	testroot.Need(t)
	dir := t.TempDir()
	var watches [2]*Watch
	var before [2]uint64
	for i := range watches {
		w, err := NewWatch()
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		watches[i], before[i] = w, w.Changes()
	}
	another := func(what string) {
		t.Helper()
		for i, w := range watches {
			now := w.Changes()
			if now == before[i] {
				t.Errorf("watch %d: after %s the number is the same", i, what)
			}
			before[i] = now
		}
	}
	if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	another("a mount")
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	another("an unmount")
	watches[0].Close()
	if a, b := watches[0].Changes(), watches[0].Changes(); a == b || a == before[0] {
		t.Error("a closed watch says that nothing has changed")
	}
}
