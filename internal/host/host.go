// Package host finds out what this node and this daemon can do. It tries, or reads what the kernel says; it compares no
// versions. It changes nothing.
package host

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/selinux"
)

// Probe describes this node. systemd: the cgroup driver is systemd's.
func Probe(h *cgroup.Hierarchies, systemd bool) (ocispec.Host, error) {
	name, err := os.Hostname()
	if err != nil {
		return ocispec.Host{}, fmt.Errorf("host: %w", err)
	}
	caps, err := capabilities()
	if err != nil {
		return ocispec.Host{}, err
	}
	labels, labelled := selinux.Enabled()
	found := ocispec.Host{
		Hostname:       name,
		Capabilities:   caps.names(),
		CgroupV2:       h.Pure(),
		SystemdCgroup:  systemd,
		AppArmor:       readTrim("/sys/module/apparmor/parameters/enabled") == "Y",
		SELinux:        labelled,
		SELinuxLabels:  ocispec.SELinuxDefaults(labels),
		Seccomp:        exists("/proc/sys/kernel/seccomp/actions_avail"),
		OOMScoreAdjMin: -1000,
		HugepageSizes:  hugepageSizes(h),
		SwapSupported:  swapLimited(h),
	}
	if !caps.has(unix.CAP_SYS_RESOURCE) {
		found.RlimitCeilings = ceilings()
		// Without the capability no process can get a score below our own (proc_pid_oom_score_adj(5)).
		found.OOMScoreAdjMin, _ = strconv.Atoi(readTrim("/proc/self/oom_score_adj"))
	}
	return found, nil
}

// SystemdRuns reports whether systemd is the init of this node (sd_booted(3)).
func SystemdRuns() bool { return exists("/run/systemd/system") }

// capabilitySet is a mask: bit n is capability n (capabilities(7)).
type capabilitySet uint64

func (c capabilitySet) has(n int) bool { return c&(1<<n) != 0 }

func (c capabilitySet) names() []string {
	var names []string
	for n, name := range ocispec.CapabilityNames() {
		if c.has(n) {
			names = append(names, name)
		}
	}
	return names
}

// capabilities are those that this daemon has and may give to others: its permitted set within its bounding set.
func capabilities() (capabilitySet, error) {
	set := ^capabilitySet(0)
	for _, key := range []string{"CapPrm", "CapBnd"} {
		mask, err := strconv.ParseUint(proc.Status(os.Getpid(), key), 16, 64)
		if err != nil {
			return 0, fmt.Errorf("host: /proc/self/status: %s: %w", key, err)
		}
		set &= capabilitySet(mask)
	}
	return set, nil
}

func ceilings() map[string]uint64 {
	found := map[string]uint64{}
	for name, resource := range wire.RlimitResources {
		var limit unix.Rlimit
		if err := unix.Prlimit(0, resource, nil, &limit); err == nil {
			found[name] = limit.Max
		}
	}
	return found
}

// hugepageSizes are those that a cgroup can limit, written as in the names of the hugetlb controller's files.
func hugepageSizes(h *cgroup.Hierarchies) []string {
	var found []string
	dirs, _ := filepath.Glob("/sys/kernel/mm/hugepages/hugepages-*kB")
	for _, dir := range dirs {
		kb, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(dir), "hugepages-"), "kB"), 10, 64)
		if err != nil || !h.Controls("hugetlb") {
			continue
		}
		found = append(found, hugepageName(kb))
	}
	return found
}

func hugepageName(kb uint64) string {
	switch {
	case kb >= 1<<20:
		return strconv.FormatUint(kb>>20, 10) + "GB"
	case kb >= 1<<10:
		return strconv.FormatUint(kb>>10, 10) + "MB"
	default:
		return strconv.FormatUint(kb, 10) + "KB"
	}
}

// swapLimited reports whether the memory controller counts swap. Its files exist in every group, except in the root of
// version 2, so a group below that is looked at.
func swapLimited(h *cgroup.Hierarchies) bool {
	if !h.Pure() {
		for _, v := range h.V1 {
			if exists(filepath.Join(v.Mount, "memory.memsw.limit_in_bytes")) {
				return true
			}
		}
		return false
	}
	found, _ := filepath.Glob(filepath.Join(h.Unified, "*", "memory.swap.max"))
	return len(found) > 0
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func readTrim(path string) string {
	data, _ := os.ReadFile(path)
	return strings.TrimSpace(string(data))
}
