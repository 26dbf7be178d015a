package arch

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestGeneratedCodeIsUpToDate needs the generators that `make generate` builds.
func TestGeneratedCodeIsUpToDate(t *testing.T) {
	for _, tool := range []string{"buf", "protoc-gen-go", "protoc-gen-go-grpc"} {
		if _, err := os.Stat(filepath.Join(root, "build", "tools", tool)); err != nil {
			t.Skipf("%s is not built; make generate does it", tool)
		}
	}
	out := t.TempDir()
	generate := exec.Command("../build/tools/buf", "generate", "--output", out)
	generate.Dir = filepath.Join(root, "api")
	if text, err := generate.CombinedOutput(); err != nil {
		t.Fatalf("buf generate: %v: %s", err, text)
	}
	fresh, kept := generated(t, out), generated(t, filepath.Join(root, "api"))
	for name, content := range fresh {
		if kept[name] != content {
			t.Errorf("api/%s is not what its .proto file says; run make generate", name)
		}
	}
	for name := range kept {
		if fresh[name] == "" {
			t.Errorf("api/%s has no .proto file", name)
		}
	}
	if len(fresh) == 0 {
		t.Error("nothing was generated")
	}
}

// generated are the files of a tree that the generators write, by their paths in it.
func generated(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".pb.go") {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		files[name] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
