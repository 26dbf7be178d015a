package host

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

func TestCapabilitiesAreNamedByTheirBits(t *testing.T) {
	for _, c := range []struct {
		set  capabilitySet
		want []string
	}{
		{0, nil},
		{1 << unix.CAP_CHOWN, []string{"CAP_CHOWN"}},
		{1<<unix.CAP_SYS_RESOURCE | 1<<unix.CAP_NET_ADMIN, []string{"CAP_NET_ADMIN", "CAP_SYS_RESOURCE"}},
		{1 << 63, nil}, // one that is newer than this program
	} {
		if got := c.set.names(); !slices.Equal(got, c.want) {
			t.Errorf("%x: %v, want %v", uint64(c.set), got, c.want)
		}
	}
	if set := capabilitySet(1 << unix.CAP_KILL); !set.has(unix.CAP_KILL) || set.has(unix.CAP_CHOWN) {
		t.Errorf("%x has CAP_KILL %t and CAP_CHOWN %t", uint64(set), set.has(unix.CAP_KILL), set.has(unix.CAP_CHOWN))
	}
}

func TestThisProcessPassesOnOnlyWhatTheKernelSaysItHolds(t *testing.T) {
	set, err := capabilities()
	if err != nil {
		t.Fatal(err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var held [2]unix.CapUserData
	if err := unix.Capget(&header, &held[0]); err != nil {
		t.Fatal(err)
	}
	for n := range 64 {
		permitted := held[n/32].Permitted&(1<<(n%32)) != 0
		bounding, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0)
		want := permitted && err == nil && bounding == 1
		if set.has(n) != want {
			t.Errorf("capability %d: %t, want %t", n, set.has(n), want)
		}
	}
}

func TestACeilingIsTheHardLimitOfThisProcess(t *testing.T) {
	found := ceilings()
	if len(found) != len(wire.RlimitResources) {
		t.Errorf("%d ceilings for %d limits", len(found), len(wire.RlimitResources))
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	if found["RLIMIT_NOFILE"] != files.Max {
		t.Errorf("RLIMIT_NOFILE: %d, want %d", found["RLIMIT_NOFILE"], files.Max)
	}
}

func TestHugePagesAreNamedAsTheFilesOfTheController(t *testing.T) {
	for kb, want := range map[uint64]string{64: "64KB", 1 << 10: "1MB", 2 << 10: "2MB", 32 << 10: "32MB", 1 << 20: "1GB", 16 << 20: "16GB"} {
		if got := hugepageName(kb); got != want {
			t.Errorf("%d kB: %s, want %s", kb, got, want)
		}
	}
}

func TestSwapIsLimitedWhereTheControllerHasItsFile(t *testing.T) {
	file := func(path ...string) {
		t.Helper()
		name := filepath.Join(path...)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	v1, v2 := t.TempDir(), t.TempDir()
	unified := &cgroup.Hierarchies{Unified: v2}
	hybrid := &cgroup.Hierarchies{V1: []cgroup.Hierarchy{{Mount: v1, Controllers: []string{"memory"}}}}
	if swapLimited(unified) || swapLimited(hybrid) {
		t.Error("swap is limited by a controller without files")
	}
	// The root of version 2 never has it, so it says nothing there.
	file(v2, "memory.swap.max")
	if swapLimited(unified) {
		t.Error("a file in the root of version 2 counts")
	}
	file(v2, "system.slice", "memory.swap.max")
	file(v1, "memory.memsw.limit_in_bytes")
	if !swapLimited(unified) || !swapLimited(hybrid) {
		t.Errorf("version 2: %t, version 1: %t", swapLimited(unified), swapLimited(hybrid))
	}
}

func TestProbeAgreesWithTheNode(t *testing.T) {
	for _, systemd := range []bool{true, false} {
		found, err := Probe(&cgroup.Hierarchies{Unified: t.TempDir()}, systemd)
		if err != nil {
			t.Fatal(err)
		}
		name, _ := os.Hostname()
		if found.Hostname != name || found.SystemdCgroup != systemd || !found.CgroupV2 || len(found.HugepageSizes) != 0 {
			t.Errorf("%+v", found)
		}
		// A node agent with the capability has no ceilings, and may give any score.
		if has := slices.Contains(found.Capabilities, "CAP_SYS_RESOURCE"); has != (found.RlimitCeilings == nil) || has && found.OOMScoreAdjMin != -1000 {
			t.Errorf("CAP_SYS_RESOURCE %t, ceilings %v, lowest score %d", has, found.RlimitCeilings, found.OOMScoreAdjMin)
		}
	}
}
