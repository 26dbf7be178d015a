package stats

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/testroot"
	"github.com/pinfold-run/pinfold/pin"
)

// inGroups runs a shell command in a new group of every hierarchy of this host that can have one.
func inGroups(t testing.TB, h *cgroup.Hierarchies, name, command string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sh", "-c", "read x; "+command)
	start, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if err := h.Remove(name); err != nil {
			t.Error(err)
		}
	})
	for _, mount := range h.Mounts() {
		dir := filepath.Join(mount, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if filepath.Base(mount) == "cpuset" {
			continue // an empty cpuset takes no process
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Appendf(nil, "%d", cmd.Process.Pid), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := start.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestARealGroupOfThisHost(t *testing.T) {
	testroot.Need(t)
	h, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("stats-test-%d", os.Getpid())
	cmd := inGroups(t, h, name, "x=$(head -c 3000000 /dev/zero | tr '\\0' x); while :; do :; done")
	r := NewReader(h)
	process, err := proc.Find(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	c := Container{ID: name, Process: process}
	first, err := r.Container(c, Everything)
	if err != nil {
		t.Fatal(err)
	}
	// CPU time is what this waits for; the kernel has no event for it.
	var last *Usage
	for limit := time.Now().Add(30 * time.Second); time.Now().Before(limit); time.Sleep(50 * time.Millisecond) {
		if last, err = r.Container(c, Everything); err != nil {
			t.Fatal(err)
		}
		if last.CPU.Rate != nil && *last.Tasks.Processes == 1 {
			break
		}
	}
	if *last.CPU.Usage <= *first.CPU.Usage || last.CPU.Rate == nil || *last.CPU.Rate == 0 || *last.CPU.Rate > 2e9 {
		t.Errorf("a busy loop shows no use of CPU: %+v", last.CPU)
	}
	if last.Memory == nil || *last.Memory.Usage == 0 || last.Memory.Stat == nil || *last.Tasks.Processes != 1 || *last.Tasks.Threads != 1 {
		t.Errorf("memory %+v, tasks %+v", last.Memory, last.Tasks)
	}
	if f := r.Files(last, c.Process); f.Descriptors < 3 || f.Limit == nil {
		t.Errorf("open files: %+v", f)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if _, err := r.Container(c, Everything); !errors.Is(err, ErrGone) {
		t.Errorf("after the end: %v", err)
	}
}

func TestTrafficIsCountedInThePodsNetwork(t *testing.T) {
	testroot.Need(t)
	set, err := pin.Create(nil, pin.Net)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	path := filepath.Join(t.TempDir(), "net")
	if err := set.Net.Pin(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pin.Unpin(path); err != nil {
			t.Error(err)
		}
	})
	err = set.Net.Do(func() error {
		for _, args := range []string{
			"link add eth0 type veth peer name other", "link set other up", "addr add 10.1.1.1/24 dev eth0", "link set eth0 up", "neigh add 10.1.1.2 lladdr 02:00:00:00:00:01 dev eth0",
		} {
			if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
				return fmt.Errorf("ip %s: %w: %s", args, err, out)
			}
		}
		_ = exec.Command("ping", "-c1", "-W1", "10.1.1.2").Run() // nobody answers
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	list, err := Network(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 || list[0].Name != "eth0" || list[0].Sent.Bytes == 0 || list[0].Sent.Packets == 0 {
		t.Errorf("%+v", list)
	}
	if _, err := Network(path + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no pin: %v", err)
	}
}

// BenchmarkOneContainer is the price of one container in a list: some ten small files.
func BenchmarkOneContainer(b *testing.B) {
	testroot.Need(b)
	h, err := cgroup.Detect()
	if err != nil {
		b.Fatal(err)
	}
	name := fmt.Sprintf("stats-bench-%d", os.Getpid())
	inGroups(b, h, name, "read x")
	r := NewReader(h)
	for b.Loop() {
		if _, err := r.Group(name, r.At(name), SwapSpace); err != nil {
			b.Fatal(err)
		}
	}
}
