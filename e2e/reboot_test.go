package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// boot does what a reboot does: every process of the node ends at once, all volatile data is gone,
// and the next daemon finds another boot ID. Files on disk stay, also the addresses in use.
func (n *node) boot() {
	n.t.Helper()
	n.kill()
	n.wipe()
	n.env = slices.DeleteFunc(n.env, func(e string) bool { return strings.HasPrefix(e, "PINFOLD_BOOT_ID=") })
	n.boots++
	n.env = append(n.env, fmt.Sprintf("PINFOLD_BOOT_ID=boot-%d", n.boots))
}

// wipe kills all processes of the node and removes its mounts, groups, interfaces, rules and state.
func (n *node) wipe() {
	err := n.until("the end of all processes", func() bool {
		// All are stopped before one is killed, so that no process notices the end of another:
		// pinder would write exit records.
		all := n.allProcesses()
		for _, signal := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
			for _, pid := range all {
				_ = syscall.Kill(pid, signal)
			}
		}
		return len(all) == 0
	})
	if err != nil {
		n.t.Error(err)
	}
	for _, line := range slices.Backward(mountLines()) {
		if target := strings.TrimPrefix(line, "mount "); strings.HasPrefix(target, n.dir) {
			_ = unix.Unmount(target, unix.MNT_DETACH)
		}
	}
	for _, line := range slices.Backward(slices.Sorted(slices.Values(n.cgroups()))) {
		_ = unix.Rmdir(strings.TrimPrefix(line, "cgroup "))
	}
	_ = exec.Command("ip", "link", "delete", n.bridge()).Run()
	n.forgetRules()
	for _, dir := range []string{"state", "netns"} {
		if err := os.RemoveAll(n.path(dir)); err != nil {
			n.t.Error(err)
		}
	}
}

// allProcesses are those with the node's directory in their command line, and those in its pods'
// groups.
func (n *node) allProcesses() []int {
	pids := map[int]bool{}
	for _, line := range n.processes() {
		var pid int
		if _, err := fmt.Sscanf(line, "process %d:", &pid); err == nil && pid != os.Getpid() {
			pids[pid] = true
		}
	}
	for _, line := range n.cgroups() {
		data, _ := os.ReadFile(filepath.Join(strings.TrimPrefix(line, "cgroup "), "cgroup.procs"))
		for _, field := range strings.Fields(string(data)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				pids[pid] = true
			}
		}
	}
	var list []int
	for pid := range pids {
		list = append(list, pid)
	}
	return list
}

// forgetRules removes the firewall rules of the node's pods, which a reboot does not restore, and
// the chains that they jump to. Those of other nodes stay.
func (n *node) forgetRules() {
	for _, tool := range []string{"iptables", "ip6tables"} {
		saved, _ := exec.Command(tool + "-save").Output()
		restore := exec.Command(tool+"-restore", "--noflush")
		restore.Stdin = strings.NewReader(n.deletions(string(saved)))
		_ = restore.Run()
	}
}

// podChain is the name of a chain that a plugin made for one pod; chains that all pods share have other names.
var podChain = regexp.MustCompile(`CNI-(DN-)?[0-9a-f]{10,}`)

// deletions turns saved rules into the commands that delete the node's own.
func (n *node) deletions(saved string) string {
	own := map[string]bool{}
	for line := range strings.Lines(saved) {
		if chain := podChain.FindString(line); chain != "" && n.ownRule(line) {
			own[chain] = true
		}
	}
	var commands, removals strings.Builder
	for line := range strings.Lines(saved) {
		rule, isRule := strings.CutPrefix(line, "-A ")
		chain, isChain := strings.CutPrefix(strings.Fields(line + " .")[0], ":")
		switch {
		case strings.HasPrefix(line, "*"):
			commands.WriteString(line)
		case isChain && own[chain]:
			fmt.Fprintf(&commands, "-F %s\n", chain)
			fmt.Fprintf(&removals, "-X %s\n", chain)
		case isRule && !own[strings.Fields(rule)[0]] && (n.ownRule(line) || own[podChain.FindString(line)]):
			commands.WriteString("-D " + rule)
		case strings.HasPrefix(line, "COMMIT"):
			commands.WriteString(removals.String() + line)
			removals.Reset()
		}
	}
	return commands.String()
}
