package pair

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// descriptors counts those of this process and of pinder's two.
func (n *node) descriptors() [3]int {
	reaper, inner := n.pids()
	var count [3]int
	for i, pid := range []int{os.Getpid(), reaper, inner} {
		entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		for _, e := range entries {
			// What a session leaves are pipes, terminals, pidfds and notes; sockets and pollers come and go.
			to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, e.Name()))
			if strings.HasPrefix(to, "pipe:") || strings.Contains(to, "pidfd") || strings.Contains(to, "ptmx") || strings.Contains(to, "pinder-state") {
				count[i]++
			}
		}
	}
	return count
}

// returnsTo waits until the descriptors are what they were, and the container runs nothing but its init.
func (n *node) returnsTo(id string, want [3]int) {
	n.t.Helper()
	var got [3]int
	var left []int
	defer func() {
		if n.t.Failed() {
			n.t.Logf("descriptors of daemon, reaper and supervisor: %v before, %v now; processes left: %v", want, got, left)
		}
	}()
	until(n.t, "everything is as before", func() bool {
		got, left = n.descriptors(), n.inGroups(id)
		for i := range want {
			if got[i] > want[i] {
				return false
			}
		}
		return len(left) == 1
	})
}

// inGroups are the processes in any group of the container.
func (n *node) inGroups(id string) (pids []int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, file := range dirs {
		b, _ := os.ReadFile(file)
		var pid int
		if _, err := fmt.Sscanf(file, "/proc/%d/cgroup", &pid); err == nil && strings.Contains(string(b), n.cgroup(id)) && procState(pid) != "Z" {
			pids = append(pids, pid)
		}
	}
	return pids
}

// sleeping is an exec whose process has a child in a session of its own.
func (n *node) sleeping(name string) wire.Exec {
	return wire.Exec{ID: "a", ExecID: name, Group: true, Process: mustJSON(n.t, process("/bin/sh", "-c", "sleep 1001 & sleep 1002; true"))}
}

// TestEndsOfExecsLeaveNothing: neither a process nor a descriptor, in daemon, reaper and supervisor.
func TestEndsOfExecsLeaveNothing(t *testing.T) {
	const many = 24
	for name, session := range map[string]func(n *node, i int){
		"ended": func(n *node, i int) {
			e, err := n.client.Exec(n.ctx(), wire.Exec{ID: "a", ExecID: fmt.Sprint("x", i), Group: true, Process: mustJSON(n.t, process("/bin/true"))})
			if err != nil {
				n.t.Error(err)
				return
			}
			_, err = e.Wait(n.ctx())
			_, _ = e.Stdout.Close(), e.Stderr.Close()
			if err != nil {
				n.t.Error(err)
			}
		},
		"timed out": func(n *node, i int) {
			e, err := n.client.Exec(n.ctx(), n.sleeping(fmt.Sprint("x", i)))
			if err == nil {
				err = e.End(n.ctx())
			}
			if err != nil {
				n.t.Error(err)
			}
		},
		"given up during the start": func(n *node, i int) {
			ctx, cancel := context.WithTimeout(n.ctx(), time.Duration(i)*8*time.Millisecond)
			defer cancel()
			if e, err := n.client.Exec(ctx, n.sleeping(fmt.Sprint("x", i))); err == nil {
				if err := e.End(n.ctx()); err != nil {
					n.t.Error(err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.run("a", "sleep 1000")
			before := n.descriptors()
			var all sync.WaitGroup
			for i := range many {
				all.Go(func() { session(n, i) })
			}
			all.Wait()
			n.returnsTo("a", before)
		})
	}
}

func TestExecsOfADaemonThatIsGoneEnd(t *testing.T) {
	n := newNode(t)
	n.run("a", "sleep 1000")
	before := n.descriptors()
	for round := range 3 {
		ctx, cancel := context.WithCancel(n.ctx())
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				e, err := n.client.Exec(ctx, n.sleeping(fmt.Sprintf("x%d-%d", round, i)))
				if err == nil { // as with the daemon's end
					_, _ = e.Stdout.Close(), e.Stderr.Close()
				}
			})
		}
		time.Sleep(time.Duration(round) * 150 * time.Millisecond) // some are under way, some have begun, some are answered
		_ = n.client.Close()                                      // to pinder this is the daemon's death
		cancel()
		all.Wait()
		n.connect()
	}
	n.returnsTo("a", before)
}

func TestAttachersThatAreGoneLeaveNoDescriptors(t *testing.T) {
	n := newNode(t)
	n.run("a", "sleep 1000")
	before := n.descriptors()
	for i := range 10 {
		a, err := n.client.Attach(n.ctx(), wire.Attach{ID: "a", AttachID: fmt.Sprint("s", i), Stdout: true, Stderr: true})
		if err != nil {
			t.Fatal(err)
		}
		a.CloseOutputs()
	}
	n.returnsTo("a", before)
}

func TestEndedExecsAreForgottenAlsoByANewSupervisor(t *testing.T) {
	n := newNode(t)
	n.run("a", "sleep 1000")
	before := n.descriptors()
	for i := range 10 {
		e, err := n.client.Exec(n.ctx(), wire.Exec{ID: "a", ExecID: fmt.Sprint("x", i), Process: mustJSON(t, process("/bin/true"))})
		if err != nil {
			t.Fatal(err)
		}
		<-e.Done() // its end is known, and not asked for
		_, _ = e.Stdout.Close(), e.Stderr.Close()
	}
	_, inner := n.pids()
	n.kill(inner)
	n.newInner(inner)
	_ = n.client.Close()
	n.connect() // another daemon, which knows none of them
	n.returnsTo("a", before)
}

// limited runs pinder with at most so many descriptors, and the daemon's end without a limit.
func limited(t *testing.T, most int) *node {
	t.Helper()
	script := filepath.Join(t.TempDir(), "pinder")
	text := fmt.Sprintf("#!/bin/sh\nulimit -n %d\nexec %s \"$@\"\n", most, pinderBinary)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	whole := pinderBinary
	pinderBinary = script
	defer func() { pinderBinary = whole }()
	return newNode(t)
}

func TestWithFewDescriptorsCreationIsRefusedAndNothingIsLost(t *testing.T) {
	n := limited(t, 160)
	reaper, inner := n.pids()
	var made []string
	for i := range 40 {
		id := fmt.Sprint("c", i)
		_, err := n.client.Create(n.ctx(), n.request(id, "echo hello; sleep 1000"))
		if err != nil {
			if !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), "descriptors") {
				t.Fatal(err)
			}
			break
		}
		n.start(id)
		made = append(made, id)
	}
	if len(made) < 4 || len(made) == 40 {
		t.Fatalf("%d containers were made with 160 descriptors", len(made))
	}
	for what, fail := range map[string]func(){
		"the daemon reconnects": func() { _ = n.client.Close(); n.connect() },
		"a new supervisor":      func() { n.kill(inner); _, inner = n.newInner(inner) },
		"a new reaper": func() {
			n.kill(reaper)
			until(t, "another reaper answers", func() bool { r, _ := n.pids(); return r != reaper })
			reaper, inner = n.pids()
		},
	} {
		fail()
		list, err := n.client.Containers(n.ctx())
		if err != nil {
			t.Fatal(err)
		}
		var running []string
		for i := range list {
			if list[i].Running() && !list[i].LogLost {
				running = append(running, list[i].ID)
			}
		}
		slices.Sort(running)
		want := slices.Sorted(slices.Values(made))
		if !slices.Equal(running, want) {
			t.Errorf("%s: running are %v, made were %v", what, running, want)
		}
	}
	if err := n.client.Delete(n.ctx(), wire.Delete{ID: made[0]}); err != nil {
		t.Errorf("a container is removed: %v", err)
	}
}
