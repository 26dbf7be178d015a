package stats

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// pressure reads stall information. Only the unified hierarchy has it, also beside version 1.
func (g Group) pressure(resource string) *Pressure {
	if g.unified == "" {
		return nil
	}
	data, ok := read(g.unified, resource+".pressure")
	if !ok {
		return nil
	}
	return parsePressure(data)
}

// keysIn reads a flat keyed file of a group, empty if there is none.
func keysIn(dir, name string) keys {
	if dir == "" {
		return nil
	}
	data, ok := read(dir, name)
	if !ok {
		return nil
	}
	return parseKeys(data)
}

const (
	microsecond = 1000
	// tick is the unit of cpuacct.stat in nanoseconds: USER_HZ is 100 on every architecture we build for.
	tick = 10_000_000
)

// cpu is nil if the group is gone or has no CPU controller.
func (g Group) cpu() *CPU {
	c := &CPU{}
	if dir := g.v1["cpuacct"]; dir != "" {
		c.Usage = number(dir, "cpuacct.usage")
		c.User, c.System = number(dir, "cpuacct.usage_user"), number(dir, "cpuacct.usage_sys")
		if c.User == nil || c.System == nil {
			ticks := keysIn(dir, "cpuacct.stat")
			c.User, c.System = ticks.get("user", tick), ticks.get("system", tick)
		}
	} else {
		stat := keysIn(g.unified, "cpu.stat")
		c.Usage = stat.get("usage_usec", microsecond)
		c.User, c.System = stat.get("user_usec", microsecond), stat.get("system_usec", microsecond)
	}
	if c.Usage == nil {
		return nil
	}
	g.cpuLimit(c)
	c.Pressure = g.pressure("cpu")
	return c
}

func (g Group) cpuLimit(c *CPU) {
	if dir := g.v1["cpu"]; dir != "" {
		stat := keysIn(dir, "cpu.stat")
		c.Periods, c.Throttled = stat.get("nr_periods", 1), stat.get("nr_throttled", 1)
		c.ThrottledTime = stat.get("throttled_time", 1)
		c.Period, c.Quota, c.Shares = number(dir, "cpu.cfs_period_us"), number(dir, "cpu.cfs_quota_us"), number(dir, "cpu.shares")
		return
	}
	if g.unified == "" {
		return
	}
	stat := keysIn(g.unified, "cpu.stat")
	c.Periods, c.Throttled = stat.get("nr_periods", 1), stat.get("nr_throttled", 1)
	c.ThrottledTime = stat.get("throttled_usec", microsecond)
	if data, ok := read(g.unified, "cpu.max"); ok {
		quota, period, _ := strings.Cut(strings.TrimSpace(string(data)), " ")
		c.Quota, c.Period = parseNumber(quota), parseNumber(period)
	}
}

// memory is nil if the group is gone or has no memory controller.
func (g Group) memory() *Memory {
	m := &Memory{Pressure: g.pressure("memory")}
	if dir := g.v1["memory"]; dir != "" {
		m.Usage, m.Peak = number(dir, "memory.usage_in_bytes"), number(dir, "memory.max_usage_in_bytes")
		m.Limit, m.Reservation = limit(dir, "memory.limit_in_bytes"), limit(dir, "memory.soft_limit_in_bytes")
		m.Failures = number(dir, "memory.failcnt")
		m.OOMKills = keysIn(dir, "memory.oom_control").get("oom_kill", 1)
		m.Stat = statV1(keysIn(dir, "memory.stat"))
		if kernel := number(dir, "memory.kmem.usage_in_bytes"); kernel != nil && m.Stat != nil {
			m.Stat.Kernel = *kernel
		}
	} else {
		dir := g.unified
		m.Usage, m.Peak = number(dir, "memory.current"), number(dir, "memory.peak")
		m.Limit, m.Reservation = limit(dir, "memory.max"), limit(dir, "memory.min")
		events := keysIn(dir, "memory.events")
		m.Failures, m.OOMKills = events.get("max", 1), events.get("oom_kill", 1)
		m.Stat = statV2(keysIn(dir, "memory.stat"))
	}
	if m.Usage == nil {
		return nil
	}
	return m
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
	kernel, ok := k["kernel"]
	if !ok { // before Linux 5.18
		kernel = k["kernel_stack"] + k["pagetables"] + k["percpu"] + k["slab"]
	}
	return &MemoryStat{
		Anonymous: k["anon"], Cache: k["file"], Mapped: k["file_mapped"], Kernel: kernel,
		ActiveAnon: k["active_anon"], InactiveAnon: k["inactive_anon"],
		ActiveFile: k["active_file"], InactiveFile: k["inactive_file"],
		PageFaults: k["pgfault"], MajorFaults: k["pgmajfault"],
		Huge: HugeStat{Anonymous: k["anon_thp"], Shared: k["shmem_thp"], File: k["file_thp"]},
	}
}

// swap is nil if swap is not counted.
func (g Group) swap() *Swap {
	dir := g.v1["memory"]
	if dir == "" {
		s := &Swap{Usage: number(g.unified, "memory.swap.current"), Limit: limit(g.unified, "memory.swap.max")}
		if s.Usage == nil {
			return nil
		}
		return s
	}
	// Version 1 counts and limits memory and swap together.
	both, memory := number(dir, "memory.memsw.usage_in_bytes"), number(dir, "memory.usage_in_bytes")
	if both == nil || memory == nil {
		return nil
	}
	s := &Swap{Usage: left(both, memory)}
	if stat := keysIn(dir, "memory.stat"); stat != nil {
		exact := stat.first("total_swap", "swap")
		s.Usage = &exact
	}
	s.Limit = left(limit(dir, "memory.memsw.limit_in_bytes"), limit(dir, "memory.limit_in_bytes"))
	return s
}

// io is nil if neither traffic nor pressure is counted.
func (g Group) io(blockDevices string) *IO {
	out := &IO{Pressure: g.pressure("io")}
	found := false
	if dir := g.v1["blkio"]; dir != "" {
		for _, kind := range []string{"throttle", "bfq"} {
			bytes, ok := read(dir, "blkio."+kind+".io_service_bytes_recursive")
			operations, _ := read(dir, "blkio."+kind+".io_serviced_recursive")
			if devices := parseBlkio(bytes, operations); len(out.Devices) == 0 {
				out.Devices = devices
			}
			found = found || ok
		}
	} else if g.unified != "" {
		var data []byte
		data, found = read(g.unified, "io.stat")
		out.Devices = parseIOStat(data)
	}
	if !found && out.Pressure == nil {
		return nil
	}
	for i := range out.Devices {
		out.Devices[i].Name = deviceName(blockDevices, out.Devices[i])
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
func (g Group) hugePages() []HugePages {
	dir, current := g.v1["hugetlb"], ".usage_in_bytes"
	if dir == "" {
		dir, current = g.unified, ".current"
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
			Size: size, Usage: number(dir, e.Name()), Peak: number(dir, "hugetlb."+size+".max_usage_in_bytes"),
		})
	}
	slices.SortFunc(list, func(a, b HugePages) int { return strings.Compare(a.Size, b.Size) })
	return list
}
