package main

import (
	"os"
	"path/filepath"
	"testing"
)

func makeDir(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func gone(path string) bool {
	_, err := os.Lstat(path)
	return os.IsNotExist(err)
}

func TestTheLogBookRemovesOnlyTheLogsOfItsOwnPods(t *testing.T) {
	b := logBook{dir: filepath.Join(t.TempDir(), "s.sock.logs")}
	if err := b.remove("stranger"); err != nil {
		t.Errorf("without a book: %v", err)
	}
	if err := b.prepare(); err != nil {
		t.Fatal(err)
	}
	if err := b.prepare(); err != nil {
		t.Errorf("again: %v", err)
	}
	dir := makeDir(t, containerLog)
	if err := b.remember("pod", dir); err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{"stranger", "..", "../x", "."} {
		_ = b.remove(other)
		if gone(dir) || gone(filepath.Join(b.dir, "pod")) {
			t.Fatalf("removing %q took the log of another pod", other)
		}
	}
	if err := b.remove("pod"); err != nil || !gone(dir) || !gone(b.dir) {
		t.Errorf("log %t, book %t gone: %v", gone(dir), gone(b.dir), err)
	}
	if err := b.remove("pod"); err != nil {
		t.Errorf("again: %v", err)
	}
}

func TestRemovingALogLeavesWhatPinfoldRunDidNotMake(t *testing.T) {
	dir := makeDir(t, containerLog, "foreign")
	if err := removeLog(dir); err != nil {
		t.Fatal(err)
	}
	if !gone(filepath.Join(dir, containerLog)) || gone(filepath.Join(dir, "foreign")) {
		t.Error("the log is left, or a foreign file gone")
	}
	// A link at the log's name is removed, but not its target.
	target := makeDir(t, "precious")
	linked := makeDir(t)
	if err := os.Symlink(filepath.Join(target, "precious"), filepath.Join(linked, containerLog)); err != nil {
		t.Fatal(err)
	}
	if err := removeLog(linked); err != nil || !gone(linked) || gone(filepath.Join(target, "precious")) {
		t.Errorf("directory gone: %t, target of the link gone: %t: %v", gone(linked), gone(filepath.Join(target, "precious")), err)
	}
	// Pinfold makes no directory at the log's name. A directory that is not empty must stay.
	odd := makeDir(t)
	if err := os.MkdirAll(filepath.Join(odd, containerLog, "deep"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := removeLog(odd); err == nil || gone(filepath.Join(odd, containerLog, "deep")) {
		t.Errorf("a directory in the log's place: %v", err)
	}
}
