package pod

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
	"github.com/pinfold-run/pinfold/pin"
)

func TestAnIDIs256RandomBits(t *testing.T) {
	hexadecimal := regexp.MustCompile(`^[0-9a-f]{64}$`)
	seen := map[string]bool{}
	for range 1000 {
		id := NewID()
		if !hexadecimal.MatchString(id) || seen[id] {
			t.Fatalf("ID %q, seen before: %t", id, seen[id])
		}
		seen[id] = true
	}
}

// An agent that looks for a container's ID in the path of an exec's group must find the container's.
func TestAnExecHasNoIDThatLooksLikeAContainers(t *testing.T) {
	if id := NewExecID(); !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(id) {
		t.Errorf("ID %q", id)
	}
}

// NAME_MAX of the kernel's file systems, cgroups and systemd's units (UNIT_NAME_MAX is 256 with the closing zero) is 255.
func TestNamesWithIDsFitTheirLimits(t *testing.T) {
	p := Paths{Root: "/var/lib/pinfold", State: "/run/pinfold", NetNS: "/run/netns"}
	id := strings.Repeat("f", 2*idBytes)
	group := cgroup.Layout{Systemd: true, Scope: cgroup.ScopePrefix}.Pod("", id)
	_, scope, _ := strings.Cut(group.Container(id), ":")
	names := []string{strings.ReplaceAll(scope, ":", "-") + ".scope", cgroup.Layout{}.Pod("", id).Path()}
	for _, path := range []string{p.NetNSPin(id), p.Pin(id, pin.User), p.Bundle(id), p.Exit(id, id), p.Upper(id, id)} {
		names = append(names, strings.Split(path, "/")...)
		if len(path) >= 4096-len("/rootfs/") {
			t.Errorf("%s is longer than PATH_MAX", path)
		}
	}
	for _, name := range names {
		if len(filepath.Base(name)) > 255 {
			t.Errorf("%s is longer than NAME_MAX", name)
		}
	}
}
