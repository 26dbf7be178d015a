package e2e

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// hostState is everything on the host that Pinfold and its plugins could leave, one line for each.
type hostState map[string]bool

// hostState lists kernel objects and files. Lines that name another node's directory belong to
// another test. The bridge plugin never removes its bridge; it is recognized by its name.
func (n *node) hostState() hostState {
	s := hostState{}
	for _, lines := range [][]string{mountLines(), n.links(), n.rules(), n.processes(), n.cgroups(), n.files()} {
		for _, line := range lines {
			if !n.foreign(line) {
				s[line] = true
			}
		}
	}
	return s
}

// foreign reports whether a line belongs to another node that runs now.
func (n *node) foreign(line string) bool {
	if strings.Contains(line, n.dir) {
		return false
	}
	return strings.Contains(line, os.TempDir()+"/pf-")
}

// leftovers are the lines that did not exist when the test began.
func (n *node) leftovers() []string {
	var left []string
	for line := range n.hostState() {
		if !n.before[line] {
			left = append(left, line)
		}
	}
	slices.Sort(left)
	return left
}

func mountLines() []string {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return []string{err.Error()}
	}
	var lines []string
	for line := range strings.Lines(string(data)) {
		lines = append(lines, "mount "+strings.Fields(line)[4])
	}
	return lines
}

// links are the interfaces on the node's bridge. The bridge plugin never removes the bridge itself.
// Other nodes of the tests use the same network namespace.
func (n *node) links() []string {
	out, err := exec.Command("ip", "-oneline", "link").Output()
	if err != nil {
		return []string{"links: " + err.Error()}
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		name, _, _ := strings.Cut(strings.TrimSuffix(fields[1], ":"), "@")
		at := slices.Index(fields, "master")
		if at >= 0 && at+1 < len(fields) && fields[at+1] == n.bridge() {
			lines = append(lines, "link "+name)
		}
	}
	return lines
}

// rules are the firewall rules for the node's pods, found by address or ID. portmap never removes
// its own chains.
func (n *node) rules() []string {
	var lines []string
	for _, save := range []string{"iptables-save", "ip6tables-save"} {
		out, _ := exec.Command(save).Output()
		for line := range strings.Lines(string(out)) {
			if strings.HasPrefix(line, "-A") && n.ownRule(line) {
				lines = append(lines, save+" "+strings.TrimSpace(line))
			}
		}
	}
	return lines
}

func (n *node) ownRule(line string) bool {
	id := anyID.FindString(line)
	return id != "" && n.knowsID(id) || strings.Contains(line, fmt.Sprintf("10.77.%d.", n.number)) ||
		strings.Contains(line, fmt.Sprintf("fd77:%d:", n.number))
}

// processes are those whose command line contains this node's directory.
func (n *node) processes() []string {
	var lines []string
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || len(cmdline) == 0 {
			continue
		}
		text := strings.TrimSpace(strings.ReplaceAll(string(cmdline), "\x00", " "))
		if strings.Contains(text, n.dir) {
			lines = append(lines, fmt.Sprintf("process %s: %s", filepath.Base(dir), text))
		}
	}
	return lines
}

// cgroups are the groups with Pinfold's name, in every hierarchy.
func (n *node) cgroups() []string {
	var lines []string
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return []string{err.Error()}
	}
	defer mounts.Close()
	scanner := bufio.NewScanner(mounts)
	for scanner.Scan() {
		if !strings.Contains(scanner.Text(), " - cgroup") {
			continue
		}
		// For cgroupfs, groups of our own; for systemd, slices with scopes.
		mount := strings.Fields(scanner.Text())[4]
		own, _ := filepath.Glob(filepath.Join(mount, "pinfold*"))
		for _, root := range append(own, filepath.Join(mount, "system.slice")) {
			_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() && n.knowsID(filepath.Base(path)) {
					lines = append(lines, "cgroup "+path)
				}
				return nil
			})
		}
	}
	return lines
}

// knowsID reports whether a group's name contains the ID of one of this node's records. Other
// groups belong to other nodes.
func (n *node) knowsID(name string) bool {
	id := anyID.FindString(name)
	return id != "" && n.log != nil && strings.Contains(n.log.String(), id)
}

// files are the files in the node's directories, without images, logs and the tests' own.
func (n *node) files() []string {
	var lines []string
	for _, dir := range []string{"netns", "state", "root/pods", "root/cni", "root/quarantine", "ipam"} {
		_ = filepath.WalkDir(n.path(dir), func(path string, d fs.DirEntry, err error) error {
			if err == nil && path != n.path(dir) && !n.expected(path) {
				lines = append(lines, "file "+path)
			}
			return nil
		})
	}
	return lines
}

// expected reports whether a file stays on a node without pods.
func (n *node) expected(path string) bool {
	rel := strings.TrimPrefix(path, n.dir+"/")
	switch rel {
	case "state/ns", "state/bundles", "state/runtime", "state/runtime/" + binaries.handler, "state/pinder.log", "state/pinder.lock",
		"state/pinder.sock", "state/nri.sock", "state/identity", "state/pinfoldd.lock", "state/nri.sock.lock", "state/admin.sock", "state/admin.sock.lock", "state/calls", "root/cni/results", "ipam/pinfold-test", "ipam/pinfold-test/lock":
		return true
	}
	// crun keeps each compiled seccomp profile once.
	return strings.HasPrefix(rel, "ipam/pinfold-test/last_reserved_ip") || strings.HasPrefix(rel, "state/runtime/crun/.cache")
}

// force removes what a failed test may have left, so that the next test starts on a clean host.
func (n *node) force() {
	n.wipe()
	_ = os.RemoveAll(n.dir)
}
