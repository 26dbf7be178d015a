package stats

import "time"

// Usage is what one container or pod uses at one time.
type Usage struct {
	// At is when it was read.
	At time.Time
	// Group is the group that was read, zero for a Sum.
	Group     Group
	CPU       *CPU
	Memory    *Memory
	Swap      *Swap
	IO        *IO
	Tasks     *Tasks
	HugePages []HugePages
	Layer     *Layer
}

// CPU is processor time, of all cores together.
type CPU struct {
	// Usage, User and System count nanoseconds since the group was made.
	Usage, User, System *uint64
	// Rate is the usage of the last seconds, in nanoseconds per second.
	Rate *uint64
	// Periods counts enforcement periods, Throttled those in which the group had to wait, and
	// ThrottledTime the nanoseconds of waiting.
	Periods, Throttled, ThrottledTime *uint64
	// Period and Quota are the limit in microseconds; Quota is nil without one.
	Period, Quota *uint64
	// Shares are the weight, as in cgroup v1.
	Shares   *uint64
	Pressure *Pressure
}

// Memory is memory of all kinds, in bytes.
type Memory struct {
	// Usage is what is charged to the group, Peak the most that ever was.
	Usage, Peak *uint64
	// Limit and Reservation are nil where there is none.
	Limit, Reservation *uint64
	// Failures counts how often the limit was reached, OOMKills the processes that were killed for it.
	Failures, OOMKills *uint64
	// Stat is nil if the kernel gives no details.
	Stat     *MemoryStat
	Pressure *Pressure
}

// MemoryStat is the part of memory.stat that both versions of cgroups have, for the group and those below it.
type MemoryStat struct {
	// Anonymous includes swap cache and transparent huge pages; Cache is all of the page cache.
	Anonymous, Cache, Mapped, Kernel, Swap uint64
	ActiveAnon, InactiveAnon               uint64
	ActiveFile, InactiveFile               uint64
	// PageFaults counts all, MajorFaults those that had to wait for a disk.
	PageFaults, MajorFaults uint64
	// Huge is the memory in transparent huge pages.
	Huge HugeStat
}

// HugeStat is memory in transparent huge pages, by its content. cgroup v1 has only the first.
type HugeStat struct{ Anonymous, Shared, File uint64 }

// WorkingSet is the usage without file pages that were not used lately: the kernel can reclaim those at once.
func (m *Memory) WorkingSet() *uint64 {
	if m.Usage == nil {
		return nil
	}
	set := *m.Usage
	if m.Stat != nil {
		set -= min(set, m.Stat.InactiveFile)
	}
	return &set
}

// Available is the limit without the working set, nil without a limit.
func (m *Memory) Available() *uint64 { return left(m.Limit, m.WorkingSet()) }

// Swap is swap space, without memory. Limit is nil if there is none.
type Swap struct{ Usage, Limit *uint64 }

// Available is the limit without the usage, nil without a limit.
func (s *Swap) Available() *uint64 { return left(s.Limit, s.Usage) }

func left(limit, used *uint64) *uint64 {
	if limit == nil || used == nil {
		return nil
	}
	n := *limit - min(*limit, *used)
	return &n
}

// IO is traffic with block devices.
type IO struct {
	Devices  []Device
	Pressure *Pressure
}

// Device is the traffic with one block device. Name is its path in /dev, or MAJOR:MINOR.
type Device struct {
	Name                                           string
	Major, Minor                                   uint64
	ReadBytes, WrittenBytes, ReadCount, WriteCount uint64
}

// Pressure is the stall information of one resource: the time in which some or all tasks waited for it.
type Pressure struct{ Some, Full Stall }

// Stall is in percent over the last 10, 60 and 300 seconds, and in total.
type Stall struct {
	Avg10, Avg60, Avg300 float64
	Total                time.Duration
}

// Tasks are processes and threads.
type Tasks struct {
	Processes, Threads *uint64
	// ThreadsMax is nil without a limit.
	ThreadsMax *uint64
	pids       []int
}

// HugePages is the usage of one page size, which is written as the kernel does ("2MB"). Peak is nil on cgroup v2.
type HugePages struct {
	Size        string
	Usage, Peak *uint64
}

// Sum adds up CPU, memory, swap and tasks of a pod that has no cgroup of its own. Limits, peaks, devices and pressure have
// no sum. The processes of parts that were read without are counted. The result is not nil.
func (r *Reader) Sum(id string, at time.Time, parts []*Usage) *Usage {
	sum := &Usage{At: at, CPU: &CPU{}, Memory: &Memory{Stat: &MemoryStat{}}, Swap: &Swap{}, Tasks: &Tasks{}}
	for _, field := range []**uint64{&sum.CPU.Usage, &sum.Memory.Usage, &sum.Tasks.Processes} {
		*field = new(uint64)
	}
	for _, u := range parts {
		if u.CPU != nil {
			add(&sum.CPU.Usage, u.CPU.Usage)
			add(&sum.CPU.User, u.CPU.User)
			add(&sum.CPU.System, u.CPU.System)
		}
		if u.Memory != nil {
			add(&sum.Memory.Usage, u.Memory.Usage)
			sum.Memory.Stat.add(u.Memory.Stat)
		}
		if u.Swap != nil {
			add(&sum.Swap.Usage, u.Swap.Usage)
		}
		if u.Tasks == nil {
			u.Tasks = r.tasksOf(u)
		}
		if u.Tasks != nil {
			add(&sum.Tasks.Processes, u.Tasks.Processes)
			add(&sum.Tasks.Threads, u.Tasks.Threads)
		}
	}
	sum.CPU.Rate = r.rates.observe(id, at, *sum.CPU.Usage)
	return sum
}

// tasksOf counts the processes of what was read without.
func (r *Reader) tasksOf(u *Usage) *Tasks {
	if u.Group.Path == "" {
		return nil
	}
	l := r.look(u.Group, Processes)
	defer l.end()
	return l.tasks(u.Group.Path)
}

func add(sum **uint64, n *uint64) {
	if n == nil {
		return
	}
	if *sum == nil {
		*sum = new(uint64)
	}
	**sum += *n
}

func (m *MemoryStat) add(o *MemoryStat) {
	if o == nil {
		return
	}
	m.Anonymous += o.Anonymous
	m.Cache += o.Cache
	m.Mapped += o.Mapped
	m.Kernel += o.Kernel
	m.Swap += o.Swap
	m.ActiveAnon += o.ActiveAnon
	m.InactiveAnon += o.InactiveAnon
	m.ActiveFile += o.ActiveFile
	m.InactiveFile += o.InactiveFile
	m.PageFaults += o.PageFaults
	m.MajorFaults += o.MajorFaults
}
