package image

import "testing"

func TestAnImageIsPinnedByAPatternOfItsNames(t *testing.T) {
	img := &Image{Tags: []string{"docker.io/library/busybox:1.36", "registry.example/team/app:2"}, Digests: []string{"registry.example/team/app@sha256:0123"}}
	for pattern, want := range map[string]bool{
		"registry.example/team/app:2":              true,
		"registry.example/team/app":                false, // it is the name of :latest
		"registry.example/team/app:*":              true,
		"registry.example/*":                       true,
		"*/app:2":                                  true,
		"*team*":                                   true,
		"*":                                        true,
		"busybox:1.36":                             true,
		"busybox":                                  false,
		"busybox*":                                 false, // a pattern is compared with the full name
		"docker.io/library/busybox:1.36":           true,
		"registry.example/team/app@sha256:0123":    true,
		"registry.example/team/app:2-and-more":     false,
		"*app":                                     false,
		"Not A Name":                               false,
		"registry.example/team/app:2\x00":          false,
		"docker.io/library/busybox:1.36*":          true,
		"*docker.io/library/busybox:1.36":          true,
		"*registry.example/team/app@sha256:012345": false,
	} {
		s := &Store{}
		if s.Pinned(img) {
			t.Fatal("pinned without a pattern")
		}
		s.SetPinnedNames([]string{"no.such/image:1", pattern})
		if s.Pinned(img) != want {
			t.Errorf("%q: %t", pattern, !want)
		}
		s.SetPinnedNames(nil)
		if s.Pinned(img) {
			t.Errorf("%q was taken away, and the image is pinned", pattern)
		}
	}
	if s := (&Store{}); !s.Pinned(&Image{Pinned: true}) {
		t.Error("what was pinned by hand stays pinned")
	}
}
