package stats

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	microsecond = 1000
	// tick is the unit of cpuacct.stat in nanoseconds: USER_HZ is 100 on every architecture we build for.
	tick = 10_000_000
)

// cpuTime is all CPU time of the group, nil if it is gone or has no CPU controller.
func (l *look) cpuTime() *uint64 {
	if dir := l.v1["cpuacct"]; dir != "" {
		return l.number(dir, "cpuacct.usage")
	}
	return l.keys(l.unified, "cpu.stat").get("usage_usec", microsecond)
}

// cpu is nil if the group is gone or has no CPU controller.
func (l *look) cpu() *CPU {
	c := &CPU{Usage: l.cpuTime()}
	if c.Usage == nil {
		return nil
	}
	if l.wants(Rest) {
		l.cpuModes(c)
		l.cpuLimit(c)
	}
	c.Pressure = l.pressureOf("cpu")
	return c
}

func (l *look) cpuModes(c *CPU) {
	dir := l.v1["cpuacct"]
	if dir == "" {
		stat := l.keys(l.unified, "cpu.stat")
		c.User, c.System = stat.get("user_usec", microsecond), stat.get("system_usec", microsecond)
		return
	}
	c.User, c.System = l.number(dir, "cpuacct.usage_user"), l.number(dir, "cpuacct.usage_sys")
	if c.User == nil || c.System == nil {
		ticks := l.keys(dir, "cpuacct.stat")
		c.User, c.System = ticks.get("user", tick), ticks.get("system", tick)
	}
}

func (l *look) cpuLimit(c *CPU) {
	if dir := l.v1["cpu"]; dir != "" {
		stat := l.keys(dir, "cpu.stat")
		c.Periods, c.Throttled = stat.get("nr_periods", 1), stat.get("nr_throttled", 1)
		c.ThrottledTime = stat.get("throttled_time", 1)
		c.Period, c.Quota, c.Shares = l.number(dir, "cpu.cfs_period_us"), l.number(dir, "cpu.cfs_quota_us"), l.number(dir, "cpu.shares")
		return
	}
	stat := l.keys(l.unified, "cpu.stat")
	c.Periods, c.Throttled = stat.get("nr_periods", 1), stat.get("nr_throttled", 1)
	c.ThrottledTime = stat.get("throttled_usec", microsecond)
	if data, ok := l.read(l.unified, "cpu.max"); ok {
		quota, period, _ := strings.Cut(strings.TrimSpace(string(data)), " ")
		c.Quota, c.Period = parseNumber(quota), parseNumber(period)
	}
}

// memory is nil if the group is gone or has no memory controller; swap is nil if it is not counted or not wanted.
func (l *look) memory() (*Memory, *Swap) {
	m := &Memory{Pressure: l.pressureOf("memory")}
	var swap *Swap
	if dir := l.v1["memory"]; dir != "" {
		swap = l.memoryV1(dir, m)
	} else {
		swap = l.memoryV2(l.unified, m)
	}
	if m.Usage == nil {
		m = nil
	}
	return m, swap
}

func (l *look) memoryV1(dir string, m *Memory) *Swap {
	m.Usage = l.number(dir, "memory.usage_in_bytes")
	stat := l.keys(dir, "memory.stat")
	m.Stat = statV1(stat)
	swapped, counted := stat.find("total_swap")
	if !counted {
		swapped, counted = stat.find("swap")
	}
	// Where neither the group nor one above it has a limit, its own need not be read.
	limited, limitedBoth := stat.below("hierarchical_memory_limit", unlimited), stat.below("hierarchical_memsw_limit", unlimited)
	if limited {
		m.Limit = l.limit(dir, "memory.limit_in_bytes")
	}
	if l.wants(Rest) {
		m.Peak, m.Reservation = l.number(dir, "memory.max_usage_in_bytes"), l.limit(dir, "memory.soft_limit_in_bytes")
		m.Failures = l.number(dir, "memory.failcnt")
		m.OOMKills = l.keys(dir, "memory.oom_control").get("oom_kill", 1)
		if kernel := l.number(dir, "memory.kmem.usage_in_bytes"); kernel != nil && m.Stat != nil {
			m.Stat.Kernel = *kernel
		}
	}
	if !l.wants(SwapSpace) {
		return nil
	}
	// Version 1 counts and limits memory and swap together.
	s := &Swap{Usage: &swapped}
	if !counted {
		both := l.number(dir, "memory.memsw.usage_in_bytes")
		if s.Usage = left(both, m.Usage); s.Usage == nil {
			return nil
		}
	}
	if limitedBoth {
		s.Limit = left(l.limit(dir, "memory.memsw.limit_in_bytes"), m.Limit)
	}
	return s
}

func (l *look) memoryV2(dir string, m *Memory) *Swap {
	m.Usage, m.Limit = l.number(dir, "memory.current"), l.limit(dir, "memory.max")
	m.Stat = statV2(l.keys(dir, "memory.stat"))
	if l.wants(Rest) {
		m.Peak, m.Reservation = l.number(dir, "memory.peak"), l.limit(dir, "memory.min")
		events := l.keys(dir, "memory.events")
		m.Failures, m.OOMKills = events.get("max", 1), events.get("oom_kill", 1)
	}
	if !l.wants(SwapSpace) {
		return nil
	}
	usage := l.number(dir, "memory.swap.current")
	if usage == nil {
		return nil
	}
	return &Swap{Usage: usage, Limit: l.limit(dir, "memory.swap.max")}
}

// statV1 takes the sums that include the groups below, if there are any.
func statV1(k keys) *MemoryStat {
	if len(k) == 0 {
		return nil
	}
	total := func(name string) uint64 { return k.first("total_"+name, name) }
	return &MemoryStat{
		Anonymous: total("rss"), Cache: total("cache"), Mapped: total("mapped_file"), Swap: total("swap"),
		ActiveAnon: total("active_anon"), InactiveAnon: total("inactive_anon"),
		ActiveFile: total("active_file"), InactiveFile: total("inactive_file"),
		PageFaults: total("pgfault"), MajorFaults: total("pgmajfault"),
		Huge: HugeStat{Anonymous: total("rss_huge")},
	}
}

func statV2(k keys) *MemoryStat {
	if len(k) == 0 {
		return nil
	}
	kernel, ok := k.find("kernel")
	if !ok { // before Linux 5.18
		kernel = k.value("kernel_stack") + k.value("pagetables") + k.value("percpu") + k.value("slab")
	}
	return &MemoryStat{
		Anonymous: k.value("anon"), Cache: k.value("file"), Mapped: k.value("file_mapped"), Kernel: kernel,
		ActiveAnon: k.value("active_anon"), InactiveAnon: k.value("inactive_anon"),
		ActiveFile: k.value("active_file"), InactiveFile: k.value("inactive_file"),
		PageFaults: k.value("pgfault"), MajorFaults: k.value("pgmajfault"),
		Huge: HugeStat{Anonymous: k.value("anon_thp"), Shared: k.value("shmem_thp"), File: k.value("file_thp")},
	}
}

// io is nil if neither traffic nor pressure is counted.
func (l *look) io() *IO {
	out := &IO{Pressure: l.pressureOf("io")}
	if out.Pressure != nil && !l.wants(Rest) {
		return out
	}
	found := false
	if dir := l.v1["blkio"]; dir != "" {
		for _, kind := range []string{"throttle", "bfq"} {
			read, ok := l.read(dir, "blkio."+kind+".io_service_bytes_recursive")
			bytes := slices.Clone(read)
			operations, _ := l.read(dir, "blkio."+kind+".io_serviced_recursive")
			if devices := parseBlkio(bytes, operations); len(out.Devices) == 0 {
				out.Devices = devices
			}
			found = found || ok
		}
	} else {
		var data []byte
		data, found = l.read(l.unified, "io.stat")
		out.Devices = parseIOStat(data)
	}
	if !found && out.Pressure == nil {
		return nil
	}
	for i := range out.Devices {
		out.Devices[i].Name = deviceName(l.reader.blockDevices, out.Devices[i])
	}
	return out
}

// deviceName finds the name of a block device. The target of the kernel's link to it ends with the name.
func deviceName(blockDevices string, d Device) string {
	number := strconv.FormatUint(d.Major, 10) + ":" + strconv.FormatUint(d.Minor, 10)
	target, err := os.Readlink(filepath.Join(blockDevices, number))
	if err != nil {
		return number
	}
	return "/dev/" + filepath.Base(target)
}

// hugePages lists the page sizes that the group has files for, sorted by name.
func (l *look) hugePages() []HugePages {
	dir, current := l.v1["hugetlb"], ".usage_in_bytes"
	if dir == "" {
		dir, current = l.unified, ".current"
	}
	if dir == "" {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var list []HugePages
	for _, e := range entries {
		size, ok := strings.CutPrefix(strings.TrimSuffix(e.Name(), current), "hugetlb.")
		if !ok || !strings.HasSuffix(e.Name(), current) || strings.Contains(size, ".") {
			continue
		}
		list = append(list, HugePages{
			Size: size, Usage: l.number(dir, e.Name()), Peak: l.number(dir, "hugetlb."+size+".max_usage_in_bytes"),
		})
	}
	slices.SortFunc(list, func(a, b HugePages) int { return strings.Compare(a.Size, b.Size) })
	return list
}
