package handler

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// What the two runtimes answer, without what is not looked at.
const (
	runcAnswer = `{"ociVersionMin":"1.0.0","mountOptions":["ro","rro"],"linux":{"namespaces":["net","user"],"seccomp":{"enabled":true}},
 "annotations":{"io.github.seccomp.libseccomp.version":"2.5.4","org.opencontainers.runc.version":"1.5.2"}}`
	crunAnswer = `{"ociVersionMin":"1.0.0","mountOptions":["ro","rro"],"linux":{"namespaces":["net","user"],"seccomp":{"enabled":true}},
 "annotations":{"io.github.seccomp.libseccomp.version":"2.5.4","run.oci.crun.commit":"1026","run.oci.crun.version":"1.21"}}`
)

// answering writes a program that answers as an OCI runtime would, and returns its path.
func answering(t *testing.T, answer string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "runtime")
	runtime(t, path, "cat <<'END'\n"+answer+"\nEND")
	return path
}

func setOf(t *testing.T, paths map[string]string) *Set {
	t.Helper()
	runtimes := map[string]Runtime{}
	for name, path := range paths {
		runtimes[name] = Runtime{Path: path}
	}
	s, err := NewSet(runtimes, "runc")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestARuntimeIsAskedWhatItCanDo(t *testing.T) {
	s := setOf(t, map[string]string{"runc": answering(t, runcAnswer), "other": answering(t, crunAnswer)})
	for name, want := range map[string]Handler{
		"":      {Name: "runc", Version: "1.5.2"},
		"runc":  {Name: "runc", Version: "1.5.2"},
		"other": {Name: "other", Version: "1.21", JoinedMappings: true},
	} {
		got, err := s.Find(context.Background(), name)
		if err != nil || got.Problem != nil {
			t.Fatalf("%q: %v %v", name, err, got.Problem)
		}
		if !got.UserNamespaces || !got.RecursiveReadOnly || !got.Seccomp {
			t.Errorf("%q: %+v", name, got)
		}
		if got.Name != want.Name || got.Version != want.Version || got.JoinedMappings != want.JoinedMappings {
			t.Errorf("%q: %+v, want %+v", name, got, want)
		}
	}
}

func TestAHandlerThatIsNotThereIsRefusedByItsName(t *testing.T) {
	s := setOf(t, map[string]string{"runc": answering(t, runcAnswer), "gone": filepath.Join(t.TempDir(), "gone")})
	for name, class := range map[string]error{"unknown": errdefs.ErrNotFound, "gone": errdefs.ErrFailedPrecondition} {
		if _, err := s.Find(context.Background(), name); !errors.Is(err, class) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var names []string
	for _, h := range s.All(context.Background()) {
		names = append(names, h.Name)
	}
	if got := strings.Join(names, ","); got != ",gone,runc" {
		t.Errorf("listed: %s", got)
	}
	if _, err := NewSet(map[string]Runtime{"runc": {Path: "/runc"}}, "crun"); err == nil || !strings.Contains(err.Error(), "crun") {
		t.Errorf("a default that is not configured: %v", err)
	}
}
