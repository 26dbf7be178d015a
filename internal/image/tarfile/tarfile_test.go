package tarfile

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestATarIsReadPlainOrCompressed(t *testing.T) {
	plain := strings.Repeat("not a tar, but nothing else either; ", 20)
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	if _, err := io.WriteString(w, plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"plain": plain, "gzip": zipped.String()} {
		r, err := Open(strings.NewReader(content))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := io.ReadAll(r)
		if err != nil || string(got) != plain {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if err := r.Close(); err != nil {
			t.Errorf("%s: close: %v", name, err)
		}
	}
}

func TestAnotherFormatIsNamed(t *testing.T) {
	for _, f := range foreignFormats {
		_, err := Open(strings.NewReader(f.magic + strings.Repeat("x", 100)))
		if err == nil || !strings.Contains(err.Error(), f.name) {
			t.Errorf("%s: %v", f.name, err)
		}
	}
}

func TestReadingEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := WithContext(ctx, strings.NewReader("abc"))
	buffer := make([]byte, 1)
	if _, err := r.Read(buffer); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := r.Read(buffer); !errors.Is(err, context.Canceled) {
		t.Errorf("Read: %v", err)
	}
}
