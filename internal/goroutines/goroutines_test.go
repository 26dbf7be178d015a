package goroutines

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestASignalWritesWhatAllGoroutinesDoAndTheProgramGoesOn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	type result struct {
		path string
		err  error
	}
	results := make(chan result, 1)
	OnSignal(dir, "test", func(path string, err error) { results <- result{path, err} })
	ask := func() result {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		select {
		case r := <-results:
			return r
		case <-time.After(10 * time.Second):
			t.Fatal("nothing was written")
		}
		return result{}
	}
	if r := ask(); r.err == nil {
		t.Errorf("there is no directory yet: %s", r.path)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for range maxFiles + 2 {
		r := ask()
		text, err := os.ReadFile(r.path)
		if r.err != nil || err != nil || !strings.Contains(string(text), "TestASignalWritesWhatAllGoroutinesDo") {
			t.Fatalf("%v, %v: %.200s", r.err, err, text)
		}
		if info, err := os.Stat(r.path); err != nil || info.Mode() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != maxFiles {
		t.Errorf("%d files are kept, %v", len(left), err)
	}
}
