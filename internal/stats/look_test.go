package stats

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
	"github.com/pinfold-run/pinfold/internal/testroot"
)

func TestWhatIsReadInPartIsThatOfTheWhole(t *testing.T) {
	for _, version := range []string{"v2", "v1"} {
		r := recordedReader(t, version)
		whole, err := r.Container(recorded, Everything)
		if err != nil {
			t.Fatal(err)
		}
		part, err := r.Container(recorded, SwapSpace|Processes)
		if err != nil {
			t.Fatal(err)
		}
		same(t, *part.CPU, CPU{Usage: whole.CPU.Usage, Shares: n(512), Pressure: whole.CPU.Pressure})
		kernel := whole.Memory.Stat.Kernel
		part.Memory.Stat.Kernel = kernel // version 1 has it in another file
		same(t, *part.Memory, Memory{Usage: whole.Memory.Usage, Limit: whole.Memory.Limit, Stat: whole.Memory.Stat, Pressure: whole.Memory.Pressure})
		same(t, *part.Swap, *whole.Swap)
		same(t, *part.IO, IO{Pressure: whole.IO.Pressure})
		if part.HugePages != nil || part.Tasks == nil {
			t.Errorf("%s: %+v %+v", version, part.HugePages, part.Tasks)
		}
		if least, err := r.Container(recorded, 0); err != nil || least.Swap != nil || least.Tasks != nil || least.Memory == nil {
			t.Errorf("%s: what was not wanted was read: %+v %v", version, least, err)
		}
		r.pressure = false
		if without, err := r.Container(recorded, SwapSpace); err != nil || without.CPU.Pressure != nil || len(without.IO.Devices) == 0 {
			t.Errorf("%s: on a kernel without pressure: %+v %v", version, without, err)
		}
	}
}

func TestALimitIsReadWhereThereIsOneAbove(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := NewReader(&cgroup.Hierarchies{V1: []cgroup.Hierarchy{{Mount: dir, Controllers: []string{"memory"}}}})
	write("memory.usage_in_bytes", "100\n")
	write("memory.limit_in_bytes", "9223372036854771712\n")
	for above, limit := range map[string]string{"9223372036854771712": "9223372036854771712", "1000": "9223372036854771712", "500": "500"} {
		write("memory.stat", "total_swap 1\nhierarchical_memory_limit "+above+"\nhierarchical_memsw_limit "+above+"\n")
		write("memory.limit_in_bytes", limit+"\n")
		write("memory.memsw.limit_in_bytes", limit+"\n")
		u, err := r.Group("g", r.At("/"), SwapSpace)
		if err != nil {
			t.Fatal(err)
		}
		if has := u.Memory.Limit != nil; has != (limit == "500") {
			t.Errorf("a limit of %s below %s is %v", limit, above, shown(u.Memory.Limit))
		}
	}
}

func TestAFileIsReadToItsEndWhateverItsLength(t *testing.T) {
	l := look{buf: make([]byte, firstBuffer)}
	for _, size := range []int{0, 1, 2047, 2048, 4096, firstBuffer - 1, firstBuffer, firstBuffer + 1, 3 * firstBuffer, 200_000} {
		want := bytes.Repeat([]byte("12345678\n"), size/9+1)[:size]
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, want, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, ok := l.read(filepath.Dir(path), "f"); !ok || !bytes.Equal(got, want) {
			t.Errorf("of %d bytes %d are read", size, len(got))
		}
	}
	large := filepath.Join(t.TempDir(), "large")
	if err := os.Truncate(large, 0); errors.Is(err, os.ErrNotExist) {
		_ = os.WriteFile(large, nil, 0o600)
	}
	if err := os.Truncate(large, 3*maxFile); err != nil {
		t.Fatal(err)
	}
	if got, _ := l.readAt(unix.AT_FDCWD, large); len(got) < maxFile || len(got) > 2*maxFile {
		t.Errorf("of a file without an end %d bytes are read", len(got))
	}
	l.end()
	if again := *buffers.Get().(*[]byte); len(again) > keptBuffer {
		t.Errorf("a buffer of %d bytes is kept", len(again))
	}
}

// below makes a group below a group, with processes of their own.
func below(t *testing.T, parent, name string, pids ...int) string {
	t.Helper()
	dir := filepath.Join(parent, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestProcessesAreCountedAsOftenAsGroupsComeAndGo(t *testing.T) {
	testroot.Need(t)
	h, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("stats-below-%d", os.Getpid())
	first, second := inGroups(t, h, name, "read x"), inGroups(t, h, name+"-b", "read x")
	r := NewReader(h)
	l := r.look(r.At(name), Processes)
	dir := l.v1["memory"]
	if dir == "" {
		dir = l.home()
	}
	l.end()
	count := func(want uint64) {
		t.Helper()
		for range 2 { // the second time from what is known
			u, err := r.Group("pod", r.At(name), Processes)
			if err != nil || *u.Tasks.Processes != want {
				t.Errorf("%v %v, not %d", shown(u.Tasks.Processes), err, want)
			}
		}
		if found, _ := cgroup.Group(dir).Processes(); uint64(len(found)) != want {
			t.Errorf("the test counts %d, and there are %d", want, len(found))
		}
	}
	count(1)
	one := below(t, dir, "one", second.Process.Pid)
	count(2)
	below(t, dir, "two")
	count(2)
	deep := below(t, one, "deep", second.Process.Pid)
	count(2)
	below(t, dir, "two", first.Process.Pid)
	count(2)
	// Another name in place of the one that is known.
	below(t, dir, "", second.Process.Pid)
	for _, gone := range []string{deep, one} {
		if err := os.Remove(gone); err != nil {
			t.Fatal(err)
		}
	}
	below(t, dir, "three", second.Process.Pid)
	count(2)
	_ = second.Process.Kill()
	_ = second.Wait()
	count(1)
	if got := r.known.below("pod"); !slices.Contains(got, "three") || slices.Contains(got, "one") {
		t.Errorf("the groups below are %q", got)
	}
}

func TestWhereAGroupIsIsFoundAnewWhenItIsGoneOrOld(t *testing.T) {
	r := recordedReader(t, "v2")
	now := time.Now()
	if _, err := r.Container(recorded, 0); err != nil {
		t.Fatal(err)
	}
	if g, ok := r.known.group(recorded, now); !ok || g.Parent().Path != "/kubepods/pod1" {
		t.Errorf("the group is %v, known %v", g, ok)
	}
	other := recorded
	other.Process.Start++
	if _, ok := r.known.group(other, now); ok {
		t.Error("a group is known for another process")
	}
	if _, ok := r.known.group(recorded, now.Add(groupAge+time.Second)); ok {
		t.Error("an old place counts")
	}
	// The group has moved since.
	alive := recorded
	alive.Process.PID = os.Getpid()
	r.known.setGroup(alive, r.At("/kubepods/moved"), now)
	if _, err := r.Container(alive, 0); !errors.Is(err, ErrGone) {
		t.Errorf("a group that is gone: %v", err)
	}
	if _, ok := r.known.group(alive, now); ok {
		t.Error("a group that is gone is known")
	}
	r.known.setGroup(recorded, r.At("/kubepods/moved"), now)
	if u, err := r.Container(recorded, 0); err != nil || u.Group.Path == "/kubepods/moved" {
		t.Errorf("the group is not looked for again: %v", err)
	}
}

func TestWhatIsNotAskedForIsNotRemembered(t *testing.T) {
	r := recordedReader(t, "v2")
	now := time.Now()
	for i := range 1000 {
		c := Container{ID: fmt.Sprint(i), Process: recorded.Process}
		r.known.setGroup(c, r.At("/g"), now)
		r.known.setBelow(fmt.Sprint("pod", i), []string{"a"})
	}
	r.sample([]Container{recorded}, now.Add(time.Hour))
	if left := len(r.known.of); left != 0 {
		t.Errorf("%d of 2000 are remembered", left)
	}
	many := t.TempDir()
	for i := range mostBelow + 1 {
		if err := os.Mkdir(filepath.Join(many, fmt.Sprint(i)), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if names := groupsIn(many); names != nil {
		t.Errorf("%d names are remembered", len(names))
	}
}
