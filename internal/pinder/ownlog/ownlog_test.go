package ownlog

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOwnLogStaysBelowItsLimit(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range 100 {
		appendBounded(f, fmt.Sprintf("line %d\n", i), 100)
	}
	content, err := os.ReadFile(name)
	if err != nil || len(content) > 100 || !strings.HasSuffix(string(content), "line 98\nline 99\n") {
		t.Fatalf("%d bytes, %q, %v", len(content), content, err)
	}
}

func TestARecordIsOneLineWhateverTheNamesContain(t *testing.T) {
	if got := oneLine("a\nforged\r\x00\x1b[31m\u2028 é \xff"); got != `a\nforged\r\x00\x1b[31m\u2028 é `+"\ufffd" {
		t.Errorf("%q", got)
	}
	if got := oneLine(strings.Repeat("é", maxLine)); len(got) > maxLine+2 {
		t.Errorf("%d bytes", len(got))
	}
}
