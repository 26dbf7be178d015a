package handler

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A runtime that prints without end about itself is a handler with a problem, not a daemon without memory.
func TestWhatARuntimeSaysAboutItselfIsBounded(t *testing.T) {
	for what, want := range map[string]string{
		"head -c 50000000 /dev/zero":                          "prints more than",
		"head -c 50000000 /dev/zero >&2; echo no >&2; exit 3": "exit status 3",
	} {
		path := filepath.Join(t.TempDir(), "runtime")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+what+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		h := ask(context.Background(), "loud", path)
		if h.Problem == nil || !strings.Contains(h.Problem.Error(), want) || len(h.Problem.Error()) > 16<<10 {
			t.Errorf("%s: %.300v", what, h.Problem)
		}
	}
}
