package ocispec

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	resourcesField = "linux.resources"
	// The kernel's limits of a CPU quota and its period, in microseconds (kernel/sched/core.c).
	minQuota, minPeriod, maxPeriod = 1000, 1000, 1000000
	// proc_pid_oom_score_adj(5).
	minOOMScoreAdj, maxOOMScoreAdj = -1000, 1000
)

// Resources converts the resources of a container or of an update, without device rules. nil and
// zero values mean "not given". Bytes, microseconds and shares are as in CRI; OCI runtimes convert
// them to the cgroup version in use. Memory without a swap limit gets no swap.
func Resources(h Host, r *runtimeapi.LinuxContainerResources) (*specs.LinuxResources, error) {
	var f faults
	checkResources(&f, h, resourcesField, r)
	if err := f.err(); err != nil {
		return nil, err
	}
	return &specs.LinuxResources{
		CPU:            cpu(r),
		Memory:         memory(h, r),
		HugepageLimits: hugepages(h, r),
		Unified:        maps.Clone(r.GetUnified()),
	}, nil
}

func containerResources(h Host, c Container) (*specs.LinuxResources, error) {
	resources, err := Resources(h, c.Config.GetLinux().GetResources())
	if err != nil {
		return nil, err
	}
	resources.Devices = deviceRules(c)
	return resources, nil
}

func cpu(r *runtimeapi.LinuxContainerResources) *specs.LinuxCPU {
	c := specs.LinuxCPU{Cpus: r.GetCpusetCpus(), Mems: r.GetCpusetMems()}
	if shares := uint64(r.GetCpuShares()); shares != 0 {
		c.Shares = &shares
	}
	if quota := r.GetCpuQuota(); quota != 0 {
		c.Quota = &quota
	}
	if period := uint64(r.GetCpuPeriod()); period != 0 {
		c.Period = &period
	}
	if c == (specs.LinuxCPU{}) {
		return nil
	}
	return &c
}

func memory(h Host, r *runtimeapi.LinuxContainerResources) *specs.LinuxMemory {
	limit, swap := r.GetMemoryLimitInBytes(), r.GetMemorySwapLimitInBytes()
	if limit == 0 && swap == 0 {
		return nil
	}
	m := &specs.LinuxMemory{}
	if limit != 0 {
		m.Limit = &limit
	}
	if h.SwapSupported {
		if swap == 0 {
			// This limits memory and swap together: nothing is left for swap.
			swap = limit
		}
		m.Swap = &swap
	}
	return m
}

// hugepages leaves out limits of zero on page sizes that the node does not have: a kubelet sends
// one for every size it knows.
func hugepages(h Host, r *runtimeapi.LinuxContainerResources) []specs.LinuxHugepageLimit {
	var list []specs.LinuxHugepageLimit
	for _, limit := range r.GetHugepageLimits() {
		if slices.Contains(h.HugepageSizes, limit.GetPageSize()) {
			list = append(list, specs.LinuxHugepageLimit{Pagesize: limit.GetPageSize(), Limit: limit.GetLimit()})
		}
	}
	return list
}

func checkResources(f *faults, h Host, field string, r *runtimeapi.LinuxContainerResources) {
	if quota := r.GetCpuQuota(); quota < -1 || quota > 0 && quota < minQuota {
		f.invalid(field+".cpu_quota", "%d µs is neither -1, 0 nor at least %d", quota, minQuota)
	}
	if period := r.GetCpuPeriod(); period != 0 && (period < minPeriod || period > maxPeriod) {
		f.invalid(field+".cpu_period", "%d µs is neither 0 nor in %d-%d", period, minPeriod, maxPeriod)
	}
	if shares := r.GetCpuShares(); shares < 0 {
		f.invalid(field+".cpu_shares", "%d is negative", shares)
	}
	if adj := r.GetOomScoreAdj(); adj < minOOMScoreAdj || adj > maxOOMScoreAdj {
		f.invalid(field+".oom_score_adj", "%d is not in %d-%d", adj, minOOMScoreAdj, maxOOMScoreAdj)
	}
	checkList(f, field+".cpuset_cpus", r.GetCpusetCpus())
	checkList(f, field+".cpuset_mems", r.GetCpusetMems())
	checkMemory(f, h, field, r)
	checkHugepages(f, h, field, r)
	checkUnified(f, h, field, r)
}

func checkMemory(f *faults, h Host, field string, r *runtimeapi.LinuxContainerResources) {
	limit, swap := r.GetMemoryLimitInBytes(), r.GetMemorySwapLimitInBytes()
	if limit < -1 {
		f.invalid(field+".memory_limit_in_bytes", "%d is neither -1 (no limit) nor a number of bytes", limit)
	}
	field += ".memory_swap_limit_in_bytes"
	switch {
	case swap < -1:
		f.invalid(field, "%d is neither -1 (no limit) nor a number of bytes", swap)
	case swap > 0 && limit <= 0:
		f.invalid(field, "%d is given without memory_limit_in_bytes (it is the limit of memory and swap together)", swap)
	case swap > 0 && swap < limit:
		f.invalid(field, "%d is less than memory_limit_in_bytes, %d (it is the limit of memory and swap together)", swap, limit)
	case swap > limit && !h.SwapSupported:
		f.lacking(field, "%d cannot be enforced: cgroups do not limit swap on this node", swap)
	}
}

func checkHugepages(f *faults, h Host, field string, r *runtimeapi.LinuxContainerResources) {
	for i, limit := range r.GetHugepageLimits() {
		field := field + indexed(".hugepage_limits", i) + ".page_size"
		size := limit.GetPageSize()
		digits := strings.TrimRight(size, "KMGTB")
		if unit := size[len(digits):]; !isDigits(digits) || len(unit) != 2 || unit[1] != 'B' || unit[0] == 'B' {
			f.invalid(field, "%q is not a page size such as 2MB or 1GB", size)
		} else if limit.GetLimit() != 0 && !slices.Contains(h.HugepageSizes, size) {
			f.lacking(field, "%q is not among this node's page sizes %v", size, h.HugepageSizes)
		}
	}
}

func checkUnified(f *faults, h Host, field string, r *runtimeapi.LinuxContainerResources) {
	for _, key := range slices.Sorted(maps.Keys(r.GetUnified())) {
		// A file of one cgroup, never a path: CONTROLLER.FILE.
		controller, file, ok := strings.Cut(key, ".")
		if !ok || controller == "" || file == "" || strings.ContainsAny(key, "/\x00\n") {
			f.invalid(field+".unified", "%q is not a cgroup file such as memory.max", key)
		}
	}
	if len(r.GetUnified()) > 0 && !h.CgroupV2 {
		f.lacking(field+".unified", "%v needs cgroup v2, which this node does not have", slices.Sorted(maps.Keys(r.GetUnified())))
	}
}

// checkList checks the list format of cpuset(7): numbers and ranges, separated by commas.
func checkList(f *faults, field, list string) {
	if list == "" {
		return
	}
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		low, err := strconv.ParseUint(first, 10, 31)
		high, err2 := strconv.ParseUint(last, 10, 31)
		if err != nil || err2 != nil || low > high {
			f.invalid(field, "%q is not a list of numbers and ranges such as 0-3,7", list)
			return
		}
	}
}
