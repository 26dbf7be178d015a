package stats

import (
	"strconv"
	"time"
)

// Metric is one of the metrics of containers and pods that a kubelet serves. Names, meanings and labels are those of
// cAdvisor, which CRI replaces (KEP-2371), so dashboards need no change. Values are whole numbers, as in CRI.
type Metric struct {
	Name, Help string
	// Counter: the value only grows. Otherwise it is a gauge.
	Counter bool
	// Labels are the names of the labels that only this metric has.
	Labels []string
	// values may return none.
	values func(Subject) []Value
}

// Value is one value of a metric. Labels are the values of Metric.Labels, in their order. At is zero, or the time of an
// earlier measurement.
type Value struct {
	N      uint64
	Labels []string
	At     time.Time
}

// Subject is what metrics are about. What does not apply is nil or zero.
type Subject struct {
	Usage   *Usage
	Files   *Files
	Network []Interface
	Started time.Time
}

// Values are the metric's values for a subject, none if the kernel has none. Any field of Usage may be nil, but not Usage
// itself.
func (m Metric) Values(s Subject) []Value { return m.values(s) }

// Metrics lists all metrics. It never changes.
func Metrics() []Metric { return metrics }

var metrics = joined(cpuMetrics, memoryMetrics, diskMetrics, networkMetrics, processMetrics, specMetrics, pressureMetrics)

func joined(lists ...[]Metric) []Metric {
	var all []Metric
	for _, list := range lists {
		all = append(all, list...)
	}
	return all
}

// one is a metric of a single number, which may be missing.
func one(get func(Subject) *uint64) func(Subject) []Value {
	return func(s Subject) []Value {
		n := get(s)
		if n == nil {
			return nil
		}
		return []Value{{N: *n}}
	}
}

// cpuTime is a metric of a time in nanoseconds that is shown in seconds.
func cpuTime(get func(*CPU) *uint64) func(Subject) []Value {
	return cpuCount(func(c *CPU) *uint64 { return seconds(get(c)) })
}

func cpuCount(get func(*CPU) *uint64) func(Subject) []Value {
	return one(func(s Subject) *uint64 {
		if s.Usage.CPU == nil {
			return nil
		}
		return get(s.Usage.CPU)
	})
}

func seconds(nanoseconds *uint64) *uint64 {
	if nanoseconds == nil {
		return nil
	}
	n := *nanoseconds / uint64(time.Second)
	return &n
}

func memoryOf(get func(*Memory) *uint64) func(Subject) []Value {
	return one(func(s Subject) *uint64 {
		if s.Usage.Memory == nil {
			return nil
		}
		return get(s.Usage.Memory)
	})
}

func memoryStat(get func(*MemoryStat) uint64) func(Subject) []Value {
	return memoryOf(func(m *Memory) *uint64 {
		if m.Stat == nil {
			return nil
		}
		n := get(m.Stat)
		return &n
	})
}

// memoryLimit is 0 without a limit, as in cAdvisor.
func memoryLimit(get func(*Memory) *uint64) func(Subject) []Value {
	return memoryOf(func(m *Memory) *uint64 { return orZero(get(m)) })
}

func orZero(n *uint64) *uint64 {
	if n == nil {
		return new(uint64)
	}
	return n
}

var cpuMetrics = []Metric{
	{
		Name: "container_cpu_usage_seconds_total", Help: "Cumulative CPU time consumed, in seconds.", Counter: true,
		Labels: []string{"cpu"},
		values: func(s Subject) []Value {
			if s.Usage.CPU == nil || s.Usage.CPU.Usage == nil {
				return nil
			}
			return []Value{{N: *seconds(s.Usage.CPU.Usage), Labels: []string{"total"}}}
		},
	},
	{
		Name: "container_cpu_user_seconds_total", Help: "Cumulative CPU time consumed in user mode, in seconds.", Counter: true,
		values: cpuTime(func(c *CPU) *uint64 { return c.User }),
	},
	{
		Name: "container_cpu_system_seconds_total", Help: "Cumulative CPU time consumed in the kernel, in seconds.", Counter: true,
		values: cpuTime(func(c *CPU) *uint64 { return c.System }),
	},
	{
		Name: "container_cpu_cfs_periods_total", Help: "Number of elapsed periods of CPU limit enforcement.", Counter: true,
		values: cpuCount(func(c *CPU) *uint64 { return c.Periods }),
	},
	{
		Name: "container_cpu_cfs_throttled_periods_total", Help: "Number of periods in which the CPU limit was reached.", Counter: true,
		values: cpuCount(func(c *CPU) *uint64 { return c.Throttled }),
	},
	{
		Name: "container_cpu_cfs_throttled_seconds_total", Help: "Time spent waiting because of the CPU limit, in seconds.", Counter: true,
		values: cpuTime(func(c *CPU) *uint64 { return c.ThrottledTime }),
	},
}

var memoryMetrics = []Metric{
	{
		Name: "container_memory_usage_bytes", Help: "Memory in use of all kinds, whenever it was accessed last, in bytes.",
		values: memoryOf(func(m *Memory) *uint64 { return m.Usage }),
	},
	{
		Name: "container_memory_working_set_bytes", Help: "Memory in use without inactive file pages, in bytes.",
		values: memoryOf((*Memory).WorkingSet),
	},
	{
		Name: "container_memory_max_usage_bytes", Help: "The most memory that was ever in use, in bytes.",
		values: memoryOf(func(m *Memory) *uint64 { return m.Peak }),
	},
	{
		Name: "container_memory_rss", Help: "Anonymous memory with swap cache and transparent huge pages, in bytes.",
		values: memoryStat(func(m *MemoryStat) uint64 { return m.Anonymous }),
	},
	{
		Name: "container_memory_cache", Help: "Page cache, in bytes.",
		values: memoryStat(func(m *MemoryStat) uint64 { return m.Cache }),
	},
	{
		Name: "container_memory_mapped_file", Help: "Memory mapped files, in bytes.",
		values: memoryStat(func(m *MemoryStat) uint64 { return m.Mapped }),
	},
	{
		Name: "container_memory_kernel_usage", Help: "Memory of the kernel charged to the container, in bytes.",
		values: memoryStat(func(m *MemoryStat) uint64 { return m.Kernel }),
	},
	{
		Name: "container_memory_swap", Help: "Swap space in use, in bytes.",
		values: one(func(s Subject) *uint64 {
			if s.Usage.Swap == nil {
				return new(uint64)
			}
			return orZero(s.Usage.Swap.Usage)
		}),
	},
	{
		Name: "container_memory_total_active_file_bytes", Help: "File pages on the active list, in bytes.",
		values: memoryStat(func(m *MemoryStat) uint64 { return m.ActiveFile }),
	},
	{
		Name: "container_memory_total_inactive_file_bytes", Help: "File pages on the inactive list, in bytes.",
		values: memoryStat(func(m *MemoryStat) uint64 { return m.InactiveFile }),
	},
	{
		Name: "container_memory_active_anon_bytes", Help: "Anonymous memory on the active list, in bytes.",
		values: memoryStat(func(m *MemoryStat) uint64 { return m.ActiveAnon }),
	},
	{
		Name: "container_memory_inactive_anon_bytes", Help: "Anonymous memory on the inactive list, in bytes.",
		values: memoryStat(func(m *MemoryStat) uint64 { return m.InactiveAnon }),
	},
	{
		Name: "container_memory_anon_thp_bytes", Help: "Anonymous memory in transparent huge pages, in bytes.",
		values: memoryStat(func(m *MemoryStat) uint64 { return m.Huge.Anonymous }),
	},
	{
		Name: "container_memory_shmem_thp_bytes", Help: "Shared memory in transparent huge pages, in bytes; 0 on cgroup v1.",
		values: memoryStat(func(m *MemoryStat) uint64 { return m.Huge.Shared }),
	},
	{
		Name: "container_memory_file_thp_bytes", Help: "File pages in transparent huge pages, in bytes; 0 on cgroup v1.",
		values: memoryStat(func(m *MemoryStat) uint64 { return m.Huge.File }),
	},
	{
		Name: "container_memory_failcnt", Help: "How often the memory limit was hit.", Counter: true,
		values: memoryOf(func(m *Memory) *uint64 { return m.Failures }),
	},
	{
		Name: "container_memory_failures_total", Help: "Page faults; pgmajfault are those that waited for a disk.", Counter: true,
		Labels: []string{"failure_type", "scope"},
		values: func(s Subject) []Value {
			if s.Usage.Memory == nil || s.Usage.Memory.Stat == nil {
				return nil
			}
			var values []Value
			for _, scope := range []string{"container", "hierarchy"} {
				values = append(values,
					Value{N: s.Usage.Memory.Stat.PageFaults, Labels: []string{"pgfault", scope}},
					Value{N: s.Usage.Memory.Stat.MajorFaults, Labels: []string{"pgmajfault", scope}})
			}
			return values
		},
	},
	{
		Name: "container_oom_events_total", Help: "Processes killed because the memory limit was reached.", Counter: true,
		values: memoryOf(func(m *Memory) *uint64 { return m.OOMKills }),
	},
	{
		Name: "container_hugetlb_usage_bytes", Help: "Huge pages in use, in bytes.", Labels: []string{"pagesize"},
		values: hugePages(func(h HugePages) *uint64 { return h.Usage }),
	},
	{
		Name: "container_hugetlb_max_usage_bytes", Help: "The most huge pages that were ever in use, in bytes.", Labels: []string{"pagesize"},
		values: hugePages(func(h HugePages) *uint64 { return h.Peak }),
	},
}

func hugePages(get func(HugePages) *uint64) func(Subject) []Value {
	return func(s Subject) []Value {
		var values []Value
		for _, h := range s.Usage.HugePages {
			if n := get(h); n != nil {
				values = append(values, Value{N: *n, Labels: []string{h.Size}})
			}
		}
		return values
	}
}

var pressureMetrics = joined(
	pressureOf("cpu", func(u *Usage) *Pressure {
		if u.CPU == nil {
			return nil
		}
		return u.CPU.Pressure
	}),
	pressureOf("memory", func(u *Usage) *Pressure {
		if u.Memory == nil {
			return nil
		}
		return u.Memory.Pressure
	}),
	pressureOf("io", func(u *Usage) *Pressure {
		if u.IO == nil {
			return nil
		}
		return u.IO.Pressure
	}),
)

func pressureOf(resource string, get func(*Usage) *Pressure) []Metric {
	total := func(stall func(*Pressure) Stall) func(Subject) []Value {
		return one(func(s Subject) *uint64 {
			p := get(s.Usage)
			if p == nil {
				return nil
			}
			n := uint64(stall(p).Total / time.Second)
			return &n
		})
	}
	return []Metric{
		{
			Name: "container_pressure_" + resource + "_waiting_seconds_total", Counter: true,
			Help:   "Time in which some task waited for " + resource + ", in seconds.",
			values: total(func(p *Pressure) Stall { return p.Some }),
		},
		{
			Name: "container_pressure_" + resource + "_stalled_seconds_total", Counter: true,
			Help:   "Time in which all tasks waited for " + resource + ", in seconds.",
			values: total(func(p *Pressure) Stall { return p.Full }),
		},
	}
}

// numbers are major and minor number of a device, as labels.
func (d Device) numbers() (major, minor string) {
	return strconv.FormatUint(d.Major, 10), strconv.FormatUint(d.Minor, 10)
}
