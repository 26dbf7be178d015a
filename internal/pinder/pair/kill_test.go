package pair

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// hierarchies are the mount points of all cgroup hierarchies here.
func hierarchies() []string {
	mounts, _ := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.procs"); err == nil {
		return []string{"/sys/fs/cgroup"}
	}
	for i := range mounts {
		mounts[i] = filepath.Dir(mounts[i])
	}
	return mounts
}

// moveOut puts a process into the root group of every hierarchy, as any root of the node can.
func moveOut(t *testing.T, pid int) {
	t.Helper()
	for _, mount := range hierarchies() {
		_ = os.WriteFile(filepath.Join(mount, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil || strings.Contains(string(b), cgroupParent) {
		t.Fatalf("process %d was not moved: %s %v", pid, b, err)
	}
}

// freeze freezes a group, with the freezer that there is.
func freeze(t *testing.T, group string) {
	t.Helper()
	file, frozen := filepath.Join("/sys/fs/cgroup/freezer", group, "freezer.state"), "FROZEN"
	if _, err := os.Stat(file); err != nil {
		file, frozen = filepath.Join("/sys/fs/cgroup", group, "cgroup.freeze"), "1"
	}
	if err := os.WriteFile(file, []byte(frozen), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		thawed := map[string]string{"FROZEN": "THAWED", "1": "0"}[frozen]
		_ = os.WriteFile(file, []byte(thawed), 0)
	})
}

// children are the processes below pid, of every depth.
func children(pid int) (found []int) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for _, f := range strings.Fields(string(b)) {
		child, _ := strconv.Atoi(f)
		found = append(append(found, child), children(child)...)
	}
	return found
}

// hiding is a way in which processes are out of the reach of one way of killing.
var hiding = map[string]func(t *testing.T, group string, pids []int){
	"in their group": func(*testing.T, string, []int) {},
	"moved out of their groups": func(t *testing.T, _ string, pids []int) {
		for _, pid := range pids {
			moveOut(t, pid)
		}
	},
	"frozen":                   func(t *testing.T, group string, _ []int) { freeze(t, group) },
	"frozen with their parent": func(t *testing.T, group string, _ []int) { freeze(t, filepath.Dir(group)) },
	"frozen below their group": func(t *testing.T, group string, pids []int) {
		freezeElsewhere(t, filepath.Join(group, "below"), pids)
	},
	"frozen in another group": func(t *testing.T, group string, pids []int) {
		freezeElsewhere(t, group+"-elsewhere", pids)
	},
	"stopped": func(t *testing.T, _ string, pids []int) {
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		}
	},
}

// freezeElsewhere moves processes to a group of the freezer's and freezes that.
func freezeElsewhere(t *testing.T, group string, pids []int) {
	t.Helper()
	mount := "/sys/fs/cgroup/freezer"
	if _, err := os.Stat(mount); err != nil {
		mount = "/sys/fs/cgroup"
	}
	dir := filepath.Join(mount, group)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	freeze(t, group)
	t.Cleanup(func() { // after the container's end
		for deadline := time.Now().Add(10 * time.Second); unix.Rmdir(dir) == unix.EBUSY && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond)
		}
	})
}

func TestAKilledContainersProcessesEndWhereverTheyAre(t *testing.T) {
	kinds := map[string][]tweak{"own PID namespace": nil, "user namespace": {withUserns}, "host PID namespace": {withHostPID}}
	for kind, tweaks := range kinds {
		for how, hide := range hiding {
			for name, end := range map[string]func(*node) error{
				"kill":   func(n *node) error { return n.client.KillAll(n.ctx(), "a") },
				"delete": func(n *node) error { return n.client.Delete(n.ctx(), wire.Delete{ID: "a"}) },
			} {
				t.Run(name+"/"+kind+"/"+how, func(t *testing.T) {
					n := newNode(t)
					c := n.run("a", "sleep 1001 & (sleep 1002 & sleep 1003) & echo ready; wait", tweaks...)
					until(t, "all processes run", func() bool { return n.logSize("a") > 0 && len(children(c.PID)) >= 3 })
					pids := append(children(c.PID), c.PID)
					hide(t, n.cgroup("a"), pids)
					if err := end(n); err != nil {
						t.Fatal(err)
					}
					if e := n.exit("a"); e.Signal != 9 {
						t.Errorf("exit: %+v", e)
					}
					for _, pid := range pids {
						if !waitGone(pid, 5*time.Second) {
							t.Errorf("process %d is left", pid)
						}
					}
				})
			}
		}
	}
}
