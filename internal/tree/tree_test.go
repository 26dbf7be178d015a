package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/testroot"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// deep makes a chain of directories whose end has no usable path, each with a file. It returns the
// directory that has the chain.
func deep(t testing.TB, levels int) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "tree-") // a file system on which that is fast
	if err != nil {
		dir = t.TempDir()
	}
	top := filepath.Join(dir, "top")
	must(t, os.Mkdir(top, 0o700))
	t.Cleanup(func() { _ = Remove(context.Background(), dir) })
	fd, err := unix.Open(top, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	for range levels {
		file, err := unix.Openat(fd, "file", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
		must(t, err)
		must(t, unix.Close(file))
		must(t, unix.Mkdirat(fd, "directory", 0o700))
		next, err := unix.Openat(fd, "directory", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, err)
		must(t, unix.Close(fd))
		fd = next
	}
	must(t, unix.Close(fd))
	return top
}

// fewDescriptors lets the test open only a few more files than are open.
func fewDescriptors(t *testing.T) {
	t.Helper()
	var before unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &before))
	open, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	few := before
	few.Cur = uint64(len(open)) + 8
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &few))
	t.Cleanup(func() { must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &before)) })
}

func removed(t *testing.T, path string) {
	t.Helper()
	must(t, Remove(t.Context(), path))
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", path, err)
	}
}

func TestATreeOfAnyDepthIsRemovedWithFewDescriptors(t *testing.T) {
	top := deep(t, 24_000)
	fewDescriptors(t)
	removed(t, top)
}

func TestATreeOfAnyShapeIsRemoved(t *testing.T) {
	outside := t.TempDir()
	must(t, os.WriteFile(outside+"/kept", nil, 0o600))
	for name, build := range map[string]func(top string){
		"nothing": func(top string) { must(t, os.Remove(top)) },
		"a file":  func(top string) { must(t, os.Remove(top)); must(t, os.WriteFile(top, nil, 0o600)) },
		"a link":  func(top string) { must(t, os.Remove(top)); must(t, os.Symlink(outside, top)) },
		"empty":   func(string) {},
		"links outside": func(top string) {
			must(t, os.MkdirAll(top+"/a/b", 0o700))
			must(t, os.Symlink(outside, top+"/a/b/link"))
		},
		"of every kind": func(top string) {
			must(t, unix.Mkfifo(top+"/fifo", 0o600))
			must(t, unix.Mknod(top+"/device", unix.S_IFCHR, 0))
			must(t, unix.Mknod(top+"/socket", unix.S_IFSOCK, 0))
		},
		"without rights": func(top string) {
			must(t, os.MkdirAll(top+"/a/b/c", 0o700))
			for _, dir := range []string{"/a/b/c", "/a/b", "/a", ""} {
				must(t, os.Chmod(top+dir, 0))
			}
		},
		"wide": func(top string) {
			for i := range 3000 {
				must(t, os.MkdirAll(fmt.Sprintf("%s/d%d/e/f", top, i), 0o700))
				must(t, os.WriteFile(fmt.Sprintf("%s/f%d", top, i), nil, 0o600))
			}
		},
		"names that removal uses": func(top string) {
			for i := range 5 {
				must(t, os.MkdirAll(fmt.Sprintf("%s/.raised-%d/.raised-%d/x/y", top, i, 5-i), 0o700))
				must(t, os.WriteFile(fmt.Sprintf("%s/.raised-%d", top, 100+i), nil, 0o600))
				must(t, os.MkdirAll(fmt.Sprintf("%s/a%d/b%d/c/d", top, i, i), 0o700))
			}
		},
		"long and strange names": func(top string) {
			dir := top
			for range 10 {
				dir += "/" + strings.Repeat("\xff", 255)
			}
			must(t, os.MkdirAll(dir+"/\n/ /*", 0o700))
		},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "without rights" {
				testroot.Need(t)
			}
			top := filepath.Join(t.TempDir(), "top")
			must(t, os.Mkdir(top, 0o700))
			build(top)
			removed(t, top)
		})
	}
	if _, err := os.Stat(outside + "/kept"); err != nil {
		t.Error(err)
	}
}

func TestWhatWasMadeImmutableIsRemoved(t *testing.T) {
	top := filepath.Join(t.TempDir(), "top")
	must(t, os.MkdirAll(top+"/a/b/c/d", 0o700))
	for i, name := range []string{"/a/b/c/file", "/a/b/c/d", "/a/b/c", "/a/b", "/a", ""} {
		if name == "/a/b/c/file" {
			must(t, os.WriteFile(top+name, nil, 0o600))
		}
		fd, err := unix.Open(top+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		must(t, err)
		x := fsxattr{flags: immutable}
		if i%2 == 1 {
			x.flags = appendOnly | projectInherited
		}
		if err := attributes(fd, fsSetXattr, &x); err != nil {
			x.flags &^= projectInherited
			if err := attributes(fd, fsSetXattr, &x); err != nil {
				t.Skipf("not on this file system: %v", err)
			}
		}
		must(t, unix.Close(fd))
	}
	if err := os.RemoveAll(top); err == nil {
		t.Fatal("it was not immutable")
	}
	removed(t, top)
}

func TestWhatIsMountedInATreeIsLeftAndToldOf(t *testing.T) {
	top := filepath.Join(t.TempDir(), "top")
	for _, dir := range []string{"/a/mounted", "/b/c/d"} {
		must(t, os.MkdirAll(top+dir, 0o700))
	}
	if err := unix.Mount("none", top+"/a/mounted", "tmpfs", 0, ""); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(top+"/a/mounted", unix.MNT_DETACH) })
	must(t, os.WriteFile(top+"/a/mounted/kept", nil, 0o600))
	err := Remove(t.Context(), top)
	if err == nil || !strings.Contains(err.Error(), "mounted") {
		t.Errorf("removing it: %v", err)
	}
	if _, err := os.Stat(top + "/b"); err == nil {
		t.Error("the rest was not removed")
	}
	if _, err := os.Stat(top + "/a/mounted/kept"); err != nil {
		t.Error(err)
	}
	must(t, unix.Unmount(top+"/a/mounted", 0))
	removed(t, top)
}

func TestARemovalThatWasInterruptedIsFinishedByTheNext(t *testing.T) {
	top := deep(t, 5_000)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := Remove(ctx, top); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	removed(t, top)
}

// If nothing can be moved to the top, because there is no space or there are too many links, the
// removal goes down instead.
func TestATreeIsRemovedWhereNothingCanBeMoved(t *testing.T) {
	top := deep(t, 300)
	fewDescriptors(t)
	fd, err := openTop(top)
	must(t, err)
	defer unix.Close(fd)
	r := &remover{top: fd, turn: newTurn(), ctx: t.Context()}
	defer r.turn.end()
	for times := 0; ; times++ {
		if _, err := os.Stat(top + "/directory"); errors.Is(err, os.ErrNotExist) {
			return
		}
		if times == 300 {
			t.Fatal("each time one directory at least is to be removed, and 300 were not enough")
		}
		must(t, r.descend(fd, "directory"))
	}
}

// A tree that is filled all the time is removed for ever.
func TestARemovalThatDoesNotEndHoldsUpNoOther(t *testing.T) {
	step := func(turn *turn) {
		turn.steps, turn.since = stepsPerLook-1, time.Time{} // a slice has ended
		must(t, turn.take(t.Context()))
	}
	endless := newTurn()
	defer endless.end()
	step(endless)
	other := make(chan struct{})
	go func() {
		defer close(other)
		turn := newTurn()
		defer turn.end()
		for range 3 {
			step(turn)
		}
	}()
	for until := time.Now().Add(30 * time.Second); ; {
		select {
		case <-other:
			return
		default:
		}
		if time.Now().After(until) {
			t.Fatal("the other removal has not had its turn")
		}
		step(endless)
	}
}

func TestErrorsAreShortHoweverLongThePath(t *testing.T) {
	if text := Short(strings.Repeat("/directory", 24_000)); len(text) > 2*maxText || !strings.HasPrefix(text, "/directory/") {
		t.Errorf("%d bytes: %s", len(text), text)
	}
	if text := Short("/a/b"); text != "/a/b" {
		t.Error(text)
	}
}

func TestAWalkSeesEachNameOnceAtAnyDepth(t *testing.T) {
	const levels = 24_000
	top := deep(t, levels)
	must(t, os.MkdirAll(top+"/wide", 0o700))
	for i := range 2000 {
		must(t, os.MkdirAll(fmt.Sprintf("%s/wide/%d/in", top, i), 0o700))
	}
	fewDescriptors(t)
	var directories, files, left, longest int
	must(t, (&Walk{
		Visit: func(e *Entry) error {
			if e.Stat.Mode&unix.S_IFMT == unix.S_IFDIR {
				directories++
			} else {
				files++
			}
			if files%1000 == 1 {
				longest = max(longest, len(e.Path()))
			}
			return nil
		},
		Left: func(*Entry) error { left++; return nil },
	}).Run(t.Context(), top))
	if directories != levels+4001 || files != levels || left != directories {
		t.Errorf("%d directories, %d left, %d files", directories, left, files)
	}
	if longest < (levels-2000)*len("/directory") {
		t.Errorf("the longest path seen has %d bytes", longest)
	}
}

func TestAWalkNeverLeavesTheTreeWhateverIsExchangedMeanwhile(t *testing.T) {
	top, outside := t.TempDir(), t.TempDir()
	for _, dir := range []string{top + "/a/b", top + "/outside", outside + "/b"} {
		must(t, os.MkdirAll(dir, 0o700))
	}
	must(t, os.Remove(top+"/outside"))
	for _, name := range []string{"/a/b/file", "/a/file"} {
		must(t, os.WriteFile(top+name, []byte("inside"), 0o600))
		must(t, os.WriteFile(outside+strings.TrimPrefix(name, "/a"), []byte("outside"), 0o600))
	}
	must(t, os.Symlink(outside, top+"/outside"))
	must(t, os.Symlink(outside+"/file", top+"/link"))
	must(t, os.WriteFile(top+"/plain", []byte("inside"), 0o600))
	must(t, unix.Mkfifo(top+"/fifo", 0o600))
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			for _, pair := range [][2]string{{"/a", "/outside"}, {"/plain", "/link"}, {"/plain", "/fifo"}} {
				_ = unix.Renameat2(unix.AT_FDCWD, top+pair[0], unix.AT_FDCWD, top+pair[1], unix.RENAME_EXCHANGE)
			}
		}
	}()
	defer func() { stop.Store(true); <-done }()
	read := 0
	for range 2000 {
		must(t, (&Walk{Visit: func(e *Entry) error {
			if e.Stat.Mode&unix.S_IFMT != unix.S_IFREG {
				return nil
			}
			file, err := e.Open()
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			defer file.Close()
			content, err := io.ReadAll(file)
			if string(content) != "inside" {
				t.Errorf("%s: %q", e.Path(), content)
			}
			read++
			return err
		}}).Run(t.Context(), top))
	}
	if read == 0 {
		t.Error("no file was read")
	}
}

func TestAWalkGoesOnWhenItsDirectoryIsMovedAway(t *testing.T) {
	top, outside := t.TempDir(), t.TempDir()
	must(t, os.MkdirAll(top+"/a/b/c", 0o700))
	must(t, os.MkdirAll(top+"/z", 0o700))
	must(t, os.WriteFile(outside+"/secret", nil, 0o600))
	var seen []string
	must(t, (&Walk{Visit: func(e *Entry) error {
		seen = append(seen, e.Name)
		if e.Name == "c" {
			must(t, os.Rename(top+"/a/b", outside+"/b"))
		}
		return nil
	}}).Run(t.Context(), top))
	if names := strings.Join(seen, " "); strings.Contains(names, "secret") || !strings.Contains(names, "z") || !strings.Contains(names, "a b c") {
		t.Errorf("seen: %s", names)
	}
}
