package containerd

import (
	cgroupstats "github.com/containerd/cgroups/v3/cgroup2/stats"

	"github.com/pinfold-run/pinfold/internal/stats"
)

// metrics are a container's numbers as containerd's shim has them for cgroup2, on every kind of host: those of version 1
// have another unit, and clients that read them all read these.
func metrics(u *stats.Usage) *cgroupstats.Metrics {
	m := &cgroupstats.Metrics{}
	if u.Tasks != nil {
		m.Pids = &cgroupstats.PidsStat{Current: number(u.Tasks.Threads), Limit: number(u.Tasks.ThreadsMax)}
	}
	if c := u.CPU; c != nil {
		m.CPU = &cgroupstats.CPUStat{
			UsageUsec: number(c.Usage) / 1000, UserUsec: number(c.User) / 1000, SystemUsec: number(c.System) / 1000,
			NrPeriods: number(c.Periods), NrThrottled: number(c.Throttled), ThrottledUsec: number(c.ThrottledTime) / 1000,
			PSI: pressure(c.Pressure),
		}
	}
	if u.Memory != nil {
		m.Memory = memory(u.Memory, u.Swap)
		m.MemoryEvents = &cgroupstats.MemoryEvents{Max: number(u.Memory.Failures), OomKill: number(u.Memory.OOMKills)}
	}
	if u.IO != nil {
		m.Io = &cgroupstats.IOStat{PSI: pressure(u.IO.Pressure)}
		for _, d := range u.IO.Devices {
			m.Io.Usage = append(m.Io.Usage, &cgroupstats.IOEntry{
				Major: d.Major, Minor: d.Minor, Rbytes: d.ReadBytes, Wbytes: d.WrittenBytes, Rios: d.ReadCount, Wios: d.WriteCount,
			})
		}
	}
	for _, h := range u.HugePages {
		m.Hugetlb = append(m.Hugetlb, &cgroupstats.HugeTlbStat{Pagesize: h.Size, Current: number(h.Usage)})
	}
	return m
}

// noLimit is how clients know the absence of a limit: the greatest number.
const noLimit = ^uint64(0)

func memory(used *stats.Memory, swap *stats.Swap) *cgroupstats.MemoryStat {
	m := &cgroupstats.MemoryStat{
		Usage: number(used.Usage), UsageLimit: noLimit, MaxUsage: number(used.Peak), PSI: pressure(used.Pressure),
	}
	if used.Limit != nil {
		m.UsageLimit = *used.Limit
	}
	if swap != nil {
		m.SwapUsage, m.SwapLimit = number(swap.Usage), number(swap.Limit)
	}
	if s := used.Stat; s != nil {
		m.Anon, m.File, m.FileMapped, m.KernelStack = s.Anonymous, s.Cache, s.Mapped, 0
		m.ActiveAnon, m.InactiveAnon, m.ActiveFile, m.InactiveFile = s.ActiveAnon, s.InactiveAnon, s.ActiveFile, s.InactiveFile
		m.Pgfault, m.Pgmajfault, m.AnonThp = s.PageFaults, s.MajorFaults, s.Huge.Anonymous
	}
	return m
}

func pressure(p *stats.Pressure) *cgroupstats.PSIStats {
	if p == nil {
		return nil
	}
	stall := func(s stats.Stall) *cgroupstats.PSIData {
		return &cgroupstats.PSIData{Avg10: s.Avg10, Avg60: s.Avg60, Avg300: s.Avg300, Total: uint64(s.Total.Microseconds())}
	}
	return &cgroupstats.PSIStats{Some: stall(p.Some), Full: stall(p.Full)}
}

// number is 0 for what the kernel does not have.
func number(n *uint64) uint64 {
	if n == nil {
		return 0
	}
	return *n
}
