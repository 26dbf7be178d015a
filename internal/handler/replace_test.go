package handler

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
)

func TestOtherHandlersTakeThePlaceOfTheConfiguredOnes(t *testing.T) {
	s, path := set(t)
	runtime(t, path, answers)
	other := filepath.Join(t.TempDir(), "other")
	runtime(t, other, "echo '{}'")
	if h := find(t, s); !h.UserNamespaces {
		t.Fatalf("%+v", h)
	}
	if err := s.Replace(map[string]Runtime{"x": {Path: other}}, "r"); err == nil {
		t.Fatal("a default that is not configured is taken")
	}
	if h := find(t, s); h.Path != path {
		t.Errorf("after a replacement that failed: %+v", h)
	}
	if err := s.Replace(map[string]Runtime{"r": {Path: other}, "x": {Path: path}}, "x"); err != nil {
		t.Fatal(err)
	}
	if h := find(t, s); h.Name != "x" || h.Path != path {
		t.Errorf("the default is %+v", h)
	}
	// The same name with another binary is another runtime, and is asked.
	if h, err := s.Find(context.Background(), "r"); err != nil || h.Path != other || h.UserNamespaces {
		t.Errorf("%+v %v", h, err)
	}
	if err := s.Replace(map[string]Runtime{"x": {Path: path}}, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Find(context.Background(), "r"); !errdefs.IsNotFound(err) || s.Has("r") {
		t.Errorf("a handler that was taken away: %v", err)
	}
	// Pods that were made with it go on with its binary.
	if h, err := s.At(context.Background(), "r", other); err != nil || h.Path != other || h.Name != "r" {
		t.Errorf("%+v %v", h, err)
	}
	if _, err := s.At(context.Background(), "r", other+"-gone"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("%v", err)
	}
}
