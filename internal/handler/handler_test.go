package handler

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// runtime writes a program in place of an OCI runtime; it notes each of its runs in the file called calls.
func runtime(t *testing.T, path, script string) {
	t.Helper()
	text := "#!/bin/sh\necho x >>" + filepath.Join(filepath.Dir(path), "calls") + "\n" + script + "\n"
	if err := os.WriteFile(path+".new", []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func calls(t *testing.T, path string) int {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(filepath.Dir(path), "calls"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Count(string(data), "x")
}

func set(t *testing.T) (s *Set, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "runtime")
	s, err := NewSet(map[string]Runtime{"r": {Path: path}}, "r")
	if err != nil {
		t.Fatal(err)
	}
	return s, path
}

func find(t *testing.T, s *Set) Handler {
	t.Helper()
	h, err := s.Find(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	return h
}

const answers = `echo '{"mountOptions":["rro"],"linux":{"namespaces":["user"],"seccomp":{"enabled":false}},"annotations":{"x.version":"1"}}'`

func TestARuntimeDoesWhatItSays(t *testing.T) {
	s, path := set(t)
	runtime(t, path, answers)
	for range 3 {
		h := find(t, s)
		if !h.UserNamespaces || !h.RecursiveReadOnly || h.Seccomp || h.Version != "1" || h.Problem != nil {
			t.Errorf("%+v", h)
		}
	}
	if n := calls(t, path); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestARuntimeWithoutFeaturesIsTrustedWithSeccompAndAskedOnce(t *testing.T) {
	s, path := set(t)
	runtime(t, path, "echo no such command >&2; exit 1")
	for range 3 {
		h := find(t, s)
		if !h.Seccomp || h.UserNamespaces || h.RecursiveReadOnly {
			t.Errorf("%+v", h)
		}
		if h.Problem == nil || errdefs.IsFailedPrecondition(h.Problem) || !strings.Contains(h.Problem.Error(), "no such command") {
			t.Errorf("the problem is %v", h.Problem)
		}
	}
	if n := calls(t, path); n != 1 {
		t.Errorf("asked %d times", n)
	}
	// After some time it is asked again…
	s.probed["r"] = probe{path: path, handler: s.probed["r"].handler, binary: s.probed["r"].binary, at: time.Now().Add(-retryAfter)}
	find(t, s)
	if n := calls(t, path); n != 2 {
		t.Errorf("asked %d times, want a second time", n)
	}
	// …and a new binary at once.
	runtime(t, path, answers)
	if h := find(t, s); h.Problem != nil || !h.UserNamespaces {
		t.Errorf("the new binary: %+v", h)
	}
}

func TestARuntimeThatCannotBeRunIsTriedEachTime(t *testing.T) {
	s, path := set(t)
	runtime(t, path, answers)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if h := find(t, s); !errdefs.IsFailedPrecondition(h.Problem) {
		t.Errorf("the problem is %v", h.Problem)
	}
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if h := find(t, s); h.Problem != nil {
		t.Errorf("it can be run again, and the problem is %v", h.Problem)
	}
}

func TestSeveralQuestionsAtOnceAreOneAndACallerMayGiveUp(t *testing.T) {
	s, path := set(t)
	gate := filepath.Join(filepath.Dir(path), "gate")
	runtime(t, path, "while [ ! -e "+gate+" ]; do sleep 0.02; done; "+answers)
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() { _, _ = s.Find(context.Background(), "r") })
	}
	for calls(t, path) == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if _, err := s.Find(ctx, "r"); err == nil {
		t.Error("a caller whose request has ended waits on")
	}
	if err := os.WriteFile(gate, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	if h := find(t, s); h.Problem != nil {
		t.Error(h.Problem)
	}
	if n := calls(t, path); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestTheStatusSaysInWordsWhatTheProblemIs(t *testing.T) {
	s, path := set(t)
	runtime(t, path, "echo out of order >&2; exit 1")
	data, err := json.Marshal(s.All(context.Background()))
	if err != nil || !strings.Contains(string(data), "out of order") || !strings.Contains(string(data), `"Name":"r"`) {
		t.Errorf("%s, %v", data, err)
	}
	if !s.Has("") || !s.Has("r") || s.Has("x") {
		t.Error("the names of handlers")
	}
}

func TestAHandlerHasTheAnnotationsThatItsConfigurationLetsPass(t *testing.T) {
	s, path := set(t)
	runtime(t, path, answers)
	other := Runtime{Path: path, Annotations: Annotations{Pod: []string{"a/*"}, Container: []string{"b"}}}
	if err := s.Replace(map[string]Runtime{"r": {Path: path}, "other": other}, "r"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // asked, and remembered
		h, err := s.Find(t.Context(), "other")
		if err != nil || !slices.Equal(h.Annotations.Pod, []string{"a/*"}) || !slices.Equal(h.Annotations.Container, []string{"b"}) {
			t.Errorf("%+v, %v", h.Annotations, err)
		}
		if usual := find(t, s); len(usual.Annotations.Pod)+len(usual.Annotations.Container) > 0 {
			t.Errorf("the other handler of the same binary: %+v", usual.Annotations)
		}
	}
}
