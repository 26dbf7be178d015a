package record

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pinfold-run/pinfold/internal/kernel/durable"
)

type doc struct {
	Name string `json:"name"`
}

func open(t *testing.T, root, boot string) *Store {
	t.Helper()
	s, err := Open(root, boot)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func intend(t *testing.T, s *Store, key, name string) {
	t.Helper()
	durable, err := s.Intend(key, doc{name})
	if err != nil {
		t.Fatal(err)
	}
	if err := durable(); err != nil {
		t.Fatal(err)
	}
}

func TestADocumentReadsAsItWasWritten(t *testing.T) {
	s := open(t, t.TempDir(), "boot1")
	intend(t, s, "pods/a/pod", "first")
	if err := s.Put("pods/a/pod", doc{"second"}); err != nil {
		t.Fatal(err)
	}
	var d doc
	entry, err := s.Get("pods/a/pod", &d)
	if err != nil || d.Name != "second" || !entry.SameBoot || entry.FromIntent {
		t.Errorf("got %+v %+v %v", d, entry, err)
	}
}

func TestAnotherBootIsNoticed(t *testing.T) {
	root := t.TempDir()
	intend(t, open(t, root, "boot1"), "k", "x")
	entry, err := open(t, root, "boot2").Get("k", &doc{})
	if err != nil || entry.SameBoot {
		t.Errorf("got %+v %v", entry, err)
	}
}

// A power cut may leave the current version empty, half-written or missing. The intent was synced
// and is read instead.
func TestTheIntentStandsInForATornCurrentVersion(t *testing.T) {
	for name, tear := range map[string]func(path string) error{
		"empty":   func(p string) error { return os.Truncate(p, 0) },
		"half":    func(p string) error { return os.Truncate(p, 20) },
		"missing": os.Remove,
		"rubbish": func(p string) error { return os.WriteFile(p, []byte("\x00\x00\x00\x00"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			s := open(t, root, "b")
			intend(t, s, "k", "intent")
			if err := tear(filepath.Join(root, "k.json")); err != nil {
				t.Fatal(err)
			}
			var d doc
			entry, err := s.Get("k", &d)
			if err != nil || !entry.FromIntent || d.Name != "intent" {
				t.Errorf("got %+v %+v %v", d, entry, err)
			}
		})
	}
}

func TestADocumentOfAnUnknownSchemaIsRefused(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{"newer": `{"schema":99,"boot":"b","body":{}}`, "none": `{"boot":"b","body":{}}`} {
		if err := os.WriteFile(filepath.Join(root, name+".json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := open(t, root, "b").Get(name, &doc{}); err == nil || !strings.Contains(err.Error(), "schema") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestAMissingDocumentIsErrNotExist(t *testing.T) {
	if _, err := open(t, t.TempDir(), "b").Get("k", &doc{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestDeleteIsIdempotentAndLeavesNothing(t *testing.T) {
	root := t.TempDir()
	s := open(t, root, "b")
	intend(t, s, "k", "x")
	for range 2 {
		if err := s.Remove("k"); err != nil {
			t.Fatal(err)
		}
	}
	left, err := os.ReadDir(root)
	if err != nil || len(left) != 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

func TestKeysListsDocumentsOnceAndDirectories(t *testing.T) {
	s := open(t, t.TempDir(), "b")
	intend(t, s, "pods/b/pod", "x")
	intend(t, s, "pods/a/pod", "x")
	intend(t, s, "pods/c", "x")
	keys, err := s.Keys("pods")
	if err != nil || !slices.Equal(keys, []string{"a", "b", "c"}) {
		t.Errorf("got %v %v", keys, err)
	}
	if keys, err := s.Keys("nothing"); err != nil || keys != nil {
		t.Errorf("a missing directory: %v %v", keys, err)
	}
}

func TestAQuarantinedDocumentIsKeptForTheOperator(t *testing.T) {
	root := t.TempDir()
	s := open(t, root, "b")
	intend(t, s, "pods/a/pod", "x")
	where, err := s.Quarantine("pods/a/pod")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(where); err != nil {
		t.Error(err)
	}
	if _, err := s.Get("pods/a/pod", &doc{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
}

func TestAFailedWriteLeavesTheOldVersion(t *testing.T) {
	root := t.TempDir()
	s := open(t, root, "b")
	intend(t, s, "k", "old")
	if err := s.Put("k", map[string]any{"name": func() {}}); err == nil {
		t.Fatal("a value that is no JSON was stored")
	}
	var d doc
	if _, err := s.Get("k", &d); err != nil || d.Name != "old" {
		t.Errorf("got %+v %v", d, err)
	}
	left, _ := filepath.Glob(filepath.Join(root, durable.TempPrefix+"*"))
	if len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestTheBootIDIsTheKernels(t *testing.T) {
	a, err := BootID()
	b, _ := BootID()
	if err != nil || a == "" || a != b {
		t.Errorf("got %q %q %v", a, b, err)
	}
}
