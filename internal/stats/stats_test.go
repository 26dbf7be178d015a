package stats

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
	"github.com/pinfold-run/pinfold/internal/kernel/proc"
)

// recordedID is the container of the recorded files in testdata: a group with limits, whose first
// process is a systemd that moved itself below.
const recordedID = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00"

var recorded = Container{ID: recordedID, Process: proc.Process{PID: 4242, Start: 987654}, Shares: 512}

// recordedReader reads testdata: a host with cgroup2 only ("v2"), or with version 1 and cgroup2 without
// controllers beside it ("v1").
func recordedReader(t *testing.T, version string) *Reader {
	t.Helper()
	root, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	h := &cgroup.Hierarchies{Unified: filepath.Join(root, "v2")}
	if version == "v1" {
		h = &cgroup.Hierarchies{Unified: filepath.Join(root, "v1/unified")}
		for _, name := range []string{"cpu,cpuacct", "memory", "blkio", "pids", "hugetlb"} {
			h.V1 = append(h.V1, cgroup.Hierarchy{Mount: filepath.Join(root, "v1", name), Controllers: strings.Split(name, ",")})
		}
	}
	r := NewReader(h)
	r.proc = filepath.Join(root, "proc-"+version)
	r.pressure = true
	r.blockDevices = t.TempDir()
	if err := os.Symlink("../../devices/pci/block/sda", filepath.Join(r.blockDevices, "8:0")); err != nil {
		t.Fatal(err)
	}
	return r
}

func n(v uint64) *uint64 { return &v }

// same compares through pointers and names the field that differs.
func same(t *testing.T, got, want any) {
	t.Helper()
	g, w := reflect.ValueOf(got), reflect.ValueOf(want)
	if g.Kind() != reflect.Struct {
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		return
	}
	for i := range g.NumField() {
		if !g.Type().Field(i).IsExported() {
			continue
		}
		a, b := g.Field(i).Interface(), w.Field(i).Interface()
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%s.%s: got %v, want %v", g.Type(), g.Type().Field(i).Name, shown(a), shown(b))
		}
	}
}

func shown(v any) any {
	if p, ok := v.(*uint64); ok && p != nil {
		return *p
	}
	return v
}

func TestBothVersionsOfCgroupsTellTheSame(t *testing.T) {
	for _, version := range []string{"v2", "v1"} {
		t.Run(version, func(t *testing.T) {
			u, err := recordedReader(t, version).Container(recorded, Everything)
			if err != nil {
				t.Fatal(err)
			}
			if want := "/kubepods/pod1/" + recordedID; u.Group.Path != want {
				t.Errorf("the container's group is %s, want %s: where its first process moved does not count", u.Group.Path, want)
			}
			acct := uint64(7000001000)
			same(t, *u.CPU, CPU{
				Usage: n(acct), User: n(5000000000), System: n(2000001000),
				Periods: n(50), Throttled: n(20), ThrottledTime: n(1500000000),
				Period: n(100000), Quota: n(20000), Shares: n(512),
				Pressure: &Pressure{
					Some: Stall{Avg10: 1.5, Avg60: 0.75, Avg300: 0.25, Total: 3 * time.Second},
					Full: Stall{Avg10: 0.5, Total: time.Second},
				},
			})
			same(t, *u.Swap, Swap{Usage: n(500000), Limit: n(2000000)})
			same(t, *u.IO, IO{
				Devices: []Device{
					{Name: "/dev/sda", Major: 8, ReadBytes: 4096, WrittenBytes: 8192, ReadCount: 1, WriteCount: 2},
					{Name: "253:16", Major: 253, Minor: 16, ReadBytes: 100, WrittenBytes: 200, ReadCount: 3, WriteCount: 4},
				},
				Pressure: &Pressure{Some: Stall{Total: 22 * time.Microsecond}, Full: Stall{Total: 20 * time.Microsecond}},
			})
			same(t, *u.Tasks, Tasks{Processes: n(3), Threads: n(5), ThreadsMax: n(100)})
			checkMemory(t, version, u)
		})
	}
}

// checkMemory allows for what only one version knows.
func checkMemory(t *testing.T, version string, u *Usage) {
	t.Helper()
	want := Memory{
		Usage: n(50000000), Peak: n(60000000), Limit: n(64000000), Failures: n(4), OOMKills: n(1),
		Stat: &MemoryStat{
			Anonymous: 20000000, Cache: 25000000, Mapped: 4000000, Kernel: 3000000,
			ActiveAnon: 19000000, InactiveAnon: 1000000, ActiveFile: 15000000, InactiveFile: 10000000,
			PageFaults: 12345, MajorFaults: 67, Huge: HugeStat{Anonymous: 2097152},
		},
		Pressure: &Pressure{Some: Stall{Total: 11 * time.Microsecond}, Full: Stall{Total: 7 * time.Microsecond}},
	}
	huge := []HugePages{{Size: "1GB", Usage: n(0)}, {Size: "2MB", Usage: n(4194304)}}
	if version == "v1" {
		want.Stat.Swap = 500000
		huge[0].Peak, huge[1].Peak = n(0), n(6291456)
	} else {
		want.Reservation = n(1000000)
	}
	same(t, *u.Memory, want)
	same(t, u.HugePages, huge)
	same(t, u.Memory.WorkingSet(), n(40000000))
	same(t, u.Memory.Available(), n(24000000))
	same(t, u.Swap.Available(), n(1500000))
}

func TestWhatIsNotThereIsNil(t *testing.T) {
	u, err := recordedReader(t, "v2").Group("pod1", recordedReader(t, "v2").At("/kubepods/pod1"), Everything)
	if err != nil {
		t.Fatal(err)
	}
	if u.CPU.Pressure != nil || u.CPU.Quota != nil || u.CPU.Periods != nil || u.Memory.Limit != nil || u.Memory.Peak != nil ||
		u.Memory.Available() != nil || u.Swap != nil || u.IO != nil || u.HugePages != nil || u.Tasks.ThreadsMax != nil {
		t.Errorf("something was made up: %+v %+v %+v", u.CPU, u.Memory, u.Tasks)
	}
	same(t, u.Memory.WorkingSet(), n(0)) // more inactive pages than usage: the files are not read at one moment
	same(t, u.Memory.Stat.Kernel, uint64(15))
	same(t, u.Tasks.Processes, n(3)) // those of the groups below
}

func TestWhatHasEndedIsGone(t *testing.T) {
	r := recordedReader(t, "v2")
	for name, c := range map[string]Container{
		"no such process":             {ID: recordedID, Process: proc.Process{PID: 4243, Start: 987654}},
		"another process of that PID": {ID: recordedID, Process: proc.Process{PID: 4242, Start: 987655}},
		"no process at all":           {ID: recordedID},
		"a process that is elsewhere": {ID: "feed", Process: recorded.Process},
	} {
		if _, err := r.Container(c, Everything); !errors.Is(err, ErrGone) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := r.Group("x", r.At("/kubepods/pod2"), Everything); !errors.Is(err, ErrGone) {
		t.Errorf("no such group: %v", err)
	}
}

func TestAPodWithoutAGroupIsTheSumOfItsContainers(t *testing.T) {
	r := recordedReader(t, "v2")
	u, err := r.Container(recorded, Everything)
	if err != nil {
		t.Fatal(err)
	}
	sum := r.Sum("pod", u.At, []*Usage{u, u, {}})
	same(t, sum.CPU.Usage, n(14000002000))
	same(t, sum.Memory.WorkingSet(), n(80000000))
	same(t, sum.Tasks.Processes, n(6))
	same(t, sum.Swap.Usage, n(1000000))
	if sum.Memory.Limit != nil {
		t.Error("limits have no sum")
	}
	if empty := r.Sum("empty", u.At, nil); *empty.CPU.Usage != 0 || *empty.Memory.Usage != 0 || *empty.Tasks.Processes != 0 {
		t.Errorf("a pod without containers uses nothing: %+v", empty)
	}
}

func TestARateIsTakenOverASecondAtLeast(t *testing.T) {
	var r rates
	begin := time.Now()
	for _, step := range []struct {
		after time.Duration
		value uint64
		want  *uint64
	}{
		{0, 1000, nil},
		{500 * time.Millisecond, 1500, nil},
		{2 * time.Second, 3000, n(1000)},
		{2500 * time.Millisecond, 6000, n(2000)}, // still since the first reading
		{2400 * time.Millisecond, 5800, n(2000)}, // two callers, in the other order
		{4 * time.Second, 7000, n(2000)},         // since the one after two seconds
		{5 * time.Second, 10, nil},               // the counter went back: another group
	} {
		if got := r.observe("c", begin.Add(step.after), step.value); !reflect.DeepEqual(got, step.want) {
			t.Errorf("after %v: %v, want %v", step.after, shown(got), shown(step.want))
		}
	}
	r.keep(begin)
	if len(r.of) != 1 {
		t.Error("what was read lately is forgotten")
	}
	r.keep(begin.Add(time.Minute))
	if len(r.of) != 0 {
		t.Error("what is gone is remembered")
	}
}

func TestThePodsMainInterfaceComesFirstAndLoopbackDoesNotCount(t *testing.T) {
	data, err := os.ReadFile("testdata/netdev")
	if err != nil {
		t.Fatal(err)
	}
	same(t, parseInterfaces(data), []Interface{
		{
			Name: "eth0", Received: Traffic{Bytes: 395537620, Packets: 23102, Errors: 1, Dropped: 2},
			Sent: Traffic{Bytes: 2047388, Packets: 18133, Errors: 3, Dropped: 4},
		},
		{Name: "net1"},
	})
}

// peersMetrics are what the field's conformance suite expects of every runtime (cri-tools, pkg/validate/pod.go).
var peersMetrics = []string{
	"container_blkio_device_usage_total", "container_cpu_cfs_periods_total", "container_cpu_cfs_throttled_periods_total",
	"container_cpu_cfs_throttled_seconds_total", "container_cpu_system_seconds_total", "container_cpu_usage_seconds_total",
	"container_cpu_user_seconds_total", "container_file_descriptors", "container_fs_inodes_free", "container_fs_inodes_total",
	"container_fs_limit_bytes", "container_fs_reads_bytes_total", "container_fs_reads_total", "container_fs_usage_bytes",
	"container_fs_writes_bytes_total", "container_fs_writes_total", "container_hugetlb_max_usage_bytes",
	"container_hugetlb_usage_bytes", "container_last_seen", "container_memory_cache", "container_memory_failcnt",
	"container_memory_failures_total", "container_memory_kernel_usage", "container_memory_mapped_file",
	"container_memory_max_usage_bytes", "container_memory_rss", "container_memory_swap", "container_memory_usage_bytes",
	"container_memory_working_set_bytes", "container_network_receive_bytes_total", "container_network_receive_errors_total",
	"container_network_receive_packets_dropped_total", "container_network_receive_packets_total",
	"container_network_transmit_bytes_total", "container_network_transmit_errors_total",
	"container_network_transmit_packets_dropped_total", "container_network_transmit_packets_total", "container_oom_events_total",
	"container_pressure_cpu_stalled_seconds_total", "container_pressure_cpu_waiting_seconds_total",
	"container_pressure_io_stalled_seconds_total", "container_pressure_io_waiting_seconds_total",
	"container_pressure_memory_stalled_seconds_total", "container_pressure_memory_waiting_seconds_total",
	"container_processes", "container_sockets", "container_spec_cpu_period", "container_spec_cpu_quota",
	"container_spec_cpu_shares", "container_spec_memory_limit_bytes", "container_spec_memory_reservation_limit_bytes",
	"container_spec_memory_swap_limit_bytes", "container_start_time_seconds", "container_threads", "container_threads_max",
	"container_ulimits_soft",
}

func TestEveryMetricOfTheFieldIsThereAndHasAValue(t *testing.T) {
	var names []string
	for _, m := range Metrics() {
		if m.Help == "" || slices.Contains(names, m.Name) {
			t.Errorf("%s has no help or is there twice", m.Name)
		}
		names = append(names, m.Name)
	}
	for _, name := range peersMetrics {
		if !slices.Contains(names, name) {
			t.Errorf("%s is missing", name)
		}
	}
	for _, version := range []string{"v2", "v1"} {
		u, err := recordedReader(t, version).Container(recorded, Everything)
		if err != nil {
			t.Fatal(err)
		}
		u.Layer = &Layer{At: time.Now(), Bytes: 1}
		s := Subject{Usage: u, Files: &Files{Limit: n(1024)}, Network: []Interface{{Name: "eth0"}}, Started: time.Unix(1000, 0)}
		for _, m := range Metrics() {
			values := m.Values(s)
			if len(values) == 0 && (version != "v2" || m.Name != "container_hugetlb_max_usage_bytes") {
				t.Errorf("%s: %s has no value", version, m.Name)
			}
			for _, v := range values {
				if len(v.Labels) != len(m.Labels) {
					t.Errorf("%s: %s has labels %v for %v", version, m.Name, v.Labels, m.Labels)
				}
			}
			// Nothing known at all is not a reason to fall over.
			m.Values(Subject{Usage: &Usage{}})
		}
	}
}

func TestMetricsAreInSecondsAndBytes(t *testing.T) {
	u, err := recordedReader(t, "v2").Container(recorded, Everything)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]uint64{
		"container_cpu_usage_seconds_total": 7, "container_cpu_cfs_throttled_seconds_total": 1, "container_spec_cpu_quota": 20000,
		"container_memory_working_set_bytes": 40000000, "container_spec_memory_limit_bytes": 64000000,
		"container_pressure_cpu_waiting_seconds_total": 3, "container_oom_events_total": 1, "container_start_time_seconds": 1000,
	}
	for _, m := range Metrics() {
		expected, ok := want[m.Name]
		if !ok {
			continue
		}
		values := m.Values(Subject{Usage: u, Started: time.Unix(1000, 0)})
		if len(values) != 1 || values[0].N != expected {
			t.Errorf("%s: %v, want %d", m.Name, values, expected)
		}
	}
}

func TestASwapLimitOfZeroMeansNoLimit(t *testing.T) {
	for name, c := range map[string]struct {
		memory *Memory
		swap   *Swap
		want   *uint64
	}{
		"may not swap":                  {&Memory{Limit: n(100)}, &Swap{Limit: n(0)}, n(100)},
		"may swap a little":             {&Memory{Limit: n(100)}, &Swap{Limit: n(7)}, n(107)},
		"no limits":                     {&Memory{}, &Swap{}, n(0)},
		"memory is limited only":        {&Memory{Limit: n(100)}, &Swap{}, n(0)},
		"swap is not accounted for":     {&Memory{Limit: n(100)}, nil, n(0)},
		"swap is limited only":          {&Memory{}, &Swap{Limit: n(7)}, n(7)},
		"no swap and all of the memory": {&Memory{}, &Swap{Limit: n(0)}, nil},
		"memory is not accounted for":   {nil, &Swap{Limit: n(0)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			same(t, memoryAndSwapLimit(Subject{Usage: &Usage{Memory: c.memory, Swap: c.swap}}), c.want)
		})
	}
}

func TestTheLimitOfOpenFilesIsTheSoftOne(t *testing.T) {
	same(t, parseOpenFilesLimit([]byte("Max processes 1 2 processes\nMax open files            1024                 524288               files \n")), n(1024))
	if parseOpenFilesLimit([]byte("Max open files            unlimited            unlimited            files \n")) != nil {
		t.Error("no limit is a number")
	}
}
