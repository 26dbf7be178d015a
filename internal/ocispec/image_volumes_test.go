package ocispec

import (
	"slices"
	"testing"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestAnImagesVolumesAreThoseThatNoMountCovers(t *testing.T) {
	image := imagespec.ImageConfig{Volumes: map[string]struct{}{
		"/data": {}, "relative/": {}, "/relative": {}, "/covered": {}, "/above/sub/": {}, "/above-not": {}, "/below": {},
		"/proc/x": {}, "/dev/shm": {}, "/sys": {}, "/system": {}, "/../up": {}, "/": {},
	}}
	config := &runtimeapi.ContainerConfig{Mounts: []*runtimeapi.Mount{
		{ContainerPath: "/covered/"}, {ContainerPath: "/above"}, {ContainerPath: "/below/sub"},
	}}
	want := []string{"/", "/above-not", "/below", "/data", "/relative", "/system", "/up"}
	if got := ImageVolumes(image, config); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestAnImagesVolumesAreWritableUnderAReadOnlyRootBeforeAllOtherMounts(t *testing.T) {
	c := Container{
		Rootfs: "/r", Volumes: []string{"/data/sub", "/proc", "/data", "/etc"},
		Config: &runtimeapi.ContainerConfig{Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{}}},
	}
	own := func() (list []string) {
		all, err := mounts(Host{}, c)
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range all {
			if m.Source == "/r"+m.Destination && slices.Contains(m.Options, "rw") && i == len(list) {
				list = append(list, m.Destination)
			}
		}
		return list
	}
	if got := own(); len(got) > 0 {
		t.Errorf("mounts %v under a writable root", got)
	}
	c.Config.Linux.SecurityContext.ReadonlyRootfs = true
	if got := own(); !slices.Equal(got, []string{"/data", "/etc"}) {
		t.Errorf("mounts %v", got)
	}
}
