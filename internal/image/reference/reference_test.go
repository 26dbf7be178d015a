package reference_test

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/image/reference"
)

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestReferencesAreNormalized(t *testing.T) {
	for in, want := range map[string]string{
		"busybox":                          "docker.io/library/busybox:latest",
		"busybox:1.36":                     "docker.io/library/busybox:1.36",
		"alice/app":                        "docker.io/alice/app:latest",
		"docker.io/busybox":                "docker.io/library/busybox:latest",
		"index.docker.io/busybox":          "docker.io/library/busybox:latest",
		"localhost:5000/a/b":               "localhost:5000/a/b:latest",
		"[::1]:5000/a:x":                   "[::1]:5000/a:x",
		"registry.example/a@" + someDigest: "registry.example/a@" + someDigest,
		"busybox:1.36@" + someDigest:       "docker.io/library/busybox@" + someDigest,
	} {
		got, err := reference.Normalize(in)
		if err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", in, got, err, want)
		}
	}
}

func TestBadReferencesAreInvalidArguments(t *testing.T) {
	for _, in := range []string{
		"", " ", "Busybox", "a:b:c", "a//b", "a@sha256:12", "-a", "http://host/a", "a@md5:d41d8cd98f00b204e9800998ecf8427e",
		strings.TrimPrefix(someDigest, "sha256:"), strings.Repeat("a/", 300) + "a", "../../etc", "a:" + strings.Repeat("x", 200),
	} {
		if got, err := reference.Normalize(in); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

func FuzzReference(f *testing.F) {
	for _, seed := range []string{
		"busybox", "a:b", "localhost:5000/a", "[::1]:1/a", "a@" + someDigest, "a:b@" + someDigest, "A", "a/../b", "\x00",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		once, err := reference.Normalize(in)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Fatalf("%q: class of %v", in, err)
			}
			return
		}
		twice, err := reference.Normalize(once)
		if err != nil || twice != once {
			t.Fatalf("%q -> %q -> %q, %v", in, once, twice, err)
		}
	})
}
