package stats

import "time"

// The metrics of disks, networks, processes and limits; see metrics.go.

var diskMetrics = []Metric{
	{
		Name: "container_fs_usage_bytes", Help: "What the writable layer takes on disk, in bytes.",
		values: ofLayer(func(l *Layer) uint64 { return l.Bytes }),
	},
	{
		Name: "container_fs_limit_bytes", Help: "Size of the file system of the writable layer, in bytes.",
		values: ofLayer(func(l *Layer) uint64 { return l.Size }),
	},
	{
		Name: "container_fs_inodes_free", Help: "Free inodes of the file system of the writable layer.",
		values: ofLayer(func(l *Layer) uint64 { return l.FreeInodes }),
	},
	{
		Name: "container_fs_inodes_total", Help: "Inodes of the file system of the writable layer.",
		values: ofLayer(func(l *Layer) uint64 { return l.TotalInodes }),
	},
	{
		Name: "container_fs_reads_total", Help: "Read operations completed.", Counter: true, Labels: []string{"device"},
		values: ofDevices(func(d Device) uint64 { return d.ReadCount }),
	},
	{
		Name: "container_fs_reads_bytes_total", Help: "Bytes read.", Counter: true, Labels: []string{"device"},
		values: ofDevices(func(d Device) uint64 { return d.ReadBytes }),
	},
	{
		Name: "container_fs_writes_total", Help: "Write operations completed.", Counter: true, Labels: []string{"device"},
		values: ofDevices(func(d Device) uint64 { return d.WriteCount }),
	},
	{
		Name: "container_fs_writes_bytes_total", Help: "Bytes written.", Counter: true, Labels: []string{"device"},
		values: ofDevices(func(d Device) uint64 { return d.WrittenBytes }),
	},
	{
		Name: "container_blkio_device_usage_total", Help: "Bytes transferred, by device and direction.", Counter: true,
		Labels: []string{"device", "major", "minor", "operation"},
		values: func(s Subject) []Value {
			if s.Usage.IO == nil {
				return nil
			}
			var values []Value
			for _, d := range s.Usage.IO.Devices {
				major, minor := d.numbers()
				values = append(values,
					Value{N: d.ReadBytes, Labels: []string{d.Name, major, minor, "Read"}},
					Value{N: d.WrittenBytes, Labels: []string{d.Name, major, minor, "Write"}})
			}
			return values
		},
	},
}

func ofLayer(get func(*Layer) uint64) func(Subject) []Value {
	return func(s Subject) []Value {
		if s.Usage.Layer == nil {
			return nil
		}
		return []Value{{N: get(s.Usage.Layer), At: s.Usage.Layer.At}}
	}
}

func ofDevices(get func(Device) uint64) func(Subject) []Value {
	return func(s Subject) []Value {
		if s.Usage.IO == nil {
			return nil
		}
		var values []Value
		for _, d := range s.Usage.IO.Devices {
			values = append(values, Value{N: get(d), Labels: []string{d.Name}})
		}
		return values
	}
}

var networkMetrics = joined(
	direction("receive", "received", func(i Interface) Traffic { return i.Received }),
	direction("transmit", "sent", func(i Interface) Traffic { return i.Sent }),
)

func direction(name, verb string, get func(Interface) Traffic) []Metric {
	metric := func(what, help string, count func(Traffic) uint64) Metric {
		return Metric{
			Name: "container_network_" + name + "_" + what + "_total", Help: help + " " + verb + ".",
			Counter: true, Labels: []string{"interface"},
			values: func(s Subject) []Value {
				var values []Value
				for _, i := range s.Network {
					values = append(values, Value{N: count(get(i)), Labels: []string{i.Name}})
				}
				return values
			},
		}
	}
	return []Metric{
		metric("bytes", "Bytes", func(t Traffic) uint64 { return t.Bytes }),
		metric("packets", "Packets", func(t Traffic) uint64 { return t.Packets }),
		metric("packets_dropped", "Packets that were dropped instead of", func(t Traffic) uint64 { return t.Dropped }),
		metric("errors", "Errors in packets", func(t Traffic) uint64 { return t.Errors }),
	}
}

var processMetrics = []Metric{
	{
		Name: "container_processes", Help: "Number of processes.",
		values: ofTasks(func(t *Tasks) *uint64 { return t.Processes }),
	},
	{
		Name: "container_threads", Help: "Number of threads.",
		values: ofTasks(func(t *Tasks) *uint64 { return t.Threads }),
	},
	{
		Name: "container_threads_max", Help: "The most threads allowed; 0 means any number.",
		values: ofTasks(func(t *Tasks) *uint64 { return orZero(t.ThreadsMax) }),
	},
	{
		Name: "container_file_descriptors", Help: "Number of open file descriptors.",
		values: ofFiles(func(f *Files) *uint64 { return &f.Descriptors }),
	},
	{
		Name: "container_sockets", Help: "Number of open sockets.",
		values: ofFiles(func(f *Files) *uint64 { return &f.Sockets }),
	},
	{
		Name: "container_ulimits_soft", Help: "Soft limits of the first process.", Labels: []string{"ulimit"},
		values: func(s Subject) []Value {
			if s.Files == nil || s.Files.Limit == nil {
				return nil
			}
			return []Value{{N: *s.Files.Limit, Labels: []string{"max_open_files"}}}
		},
	},
	{
		Name: "container_last_seen", Help: "When this was read, in seconds since 1970.",
		values: one(func(s Subject) *uint64 { return epoch(s.Usage.At) }),
	},
	{
		Name: "container_start_time_seconds", Help: "When it was started, in seconds since 1970.",
		values: one(func(s Subject) *uint64 { return epoch(s.Started) }),
	},
}

func ofTasks(get func(*Tasks) *uint64) func(Subject) []Value {
	return one(func(s Subject) *uint64 {
		if s.Usage.Tasks == nil {
			return nil
		}
		return get(s.Usage.Tasks)
	})
}

func ofFiles(get func(*Files) *uint64) func(Subject) []Value {
	return one(func(s Subject) *uint64 {
		if s.Files == nil {
			return nil
		}
		return get(s.Files)
	})
}

func epoch(t time.Time) *uint64 {
	if t.IsZero() {
		return nil
	}
	n := uint64(max(0, t.Unix()))
	return &n
}

var specMetrics = []Metric{
	{
		Name: "container_spec_cpu_period", Help: "Length of a period of CPU limit enforcement, in microseconds.",
		values: cpuCount(func(c *CPU) *uint64 { return c.Period }),
	},
	{
		Name: "container_spec_cpu_quota", Help: "CPU time allowed in each period, in microseconds.",
		values: cpuCount(func(c *CPU) *uint64 { return c.Quota }),
	},
	{
		Name: "container_spec_cpu_shares", Help: "CPU weight, in shares.",
		values: cpuCount(func(c *CPU) *uint64 { return c.Shares }),
	},
	{
		Name: "container_spec_memory_limit_bytes", Help: "Memory limit, in bytes; 0 means none.",
		values: memoryLimit(func(m *Memory) *uint64 { return m.Limit }),
	},
	{
		Name: "container_spec_memory_reservation_limit_bytes", Help: "Memory that is protected, in bytes; 0 means none.",
		values: memoryLimit(func(m *Memory) *uint64 { return m.Reservation }),
	},
	{
		Name: "container_spec_memory_swap_limit_bytes", Help: "Limit of memory and swap together, in bytes; 0 means none.",
		values: one(memoryAndSwapLimit),
	},
}

// memoryAndSwapLimit is the sum of both, as in cAdvisor and other runtimes. 0 means no limit, so a container that may not
// swap shows its memory limit. If it has no memory limit either, there is no true value, and none is shown.
func memoryAndSwapLimit(s Subject) *uint64 {
	memory, swap := s.Usage.Memory, s.Usage.Swap
	switch {
	case memory == nil:
		return nil
	case swap == nil || swap.Limit == nil:
		return new(uint64)
	case memory.Limit == nil && *swap.Limit == 0:
		return nil
	}
	sum := *swap.Limit + *orZero(memory.Limit)
	return &sum
}
