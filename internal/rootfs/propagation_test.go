package rootfs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestTheMountOfAPathSaysHowItPropagates(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"private", "shared", "both", "slave"} {
		if name == "private" || name == "shared" {
			mounted(t, "none", at(name), "tmpfs", 0, "")
		} else {
			mounted(t, at("shared"), at(name), "", unix.MS_BIND, "")
		}
		for _, kind := range map[string][]uintptr{
			"private": {unix.MS_PRIVATE}, "shared": {unix.MS_SHARED}, "slave": {unix.MS_SLAVE}, "both": {unix.MS_SLAVE, unix.MS_SHARED},
		}[name] {
			must(t, unix.Mount("", at(name), "", kind, ""))
		}
		must(t, os.MkdirAll(at(name)+"/sub", 0o755))
		must(t, os.Symlink(at(name)+"/sub", at("link-"+name)))
		for _, path := range []string{at(name), at(name) + "/sub", at("link-" + name)} {
			got, err := MountOf(path)
			want := HostMount{Point: at(name), Shared: name == "shared" || name == "both", Slave: name == "slave" || name == "both"}
			if err != nil || got != want {
				t.Errorf("%s: %+v %v, want %+v", path, got, err, want)
			}
		}
	}
	if _, err := MountOf(at("missing")); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("missing: %v", err)
	}
}
