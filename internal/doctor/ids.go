package doctor

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// idRange is a line of subuid(5): these IDs of the node are a user's to map.
type idRange struct {
	owner         string
	first, length uint64
}

func (r idRange) String() string { return fmt.Sprintf("%s:%d:%d", r.owner, r.first, r.length) }

// podIDs is how many IDs a kubelet gives to each pod.
const podIDs = 65536

// ranges reads subuid or subgid. Lines that are not ranges are the second result.
func (n *Node) ranges(file string) (found []idRange, wrong []string) {
	for line := range strings.Lines(n.read(file)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		parts := strings.Split(line, ":")
		if len(parts) != 3 {
			wrong = append(wrong, line)
			continue
		}
		first, err1 := strconv.ParseUint(parts[1], 10, 32)
		length, err2 := strconv.ParseUint(parts[2], 10, 32)
		if err1 != nil || err2 != nil {
			wrong = append(wrong, line)
			continue
		}
		found = append(found, idRange{parts[0], first, length})
	}
	return found, wrong
}

// subordinateIDs looks at the IDs that kubelet and pinfold give to pods with user namespaces.
func subordinateIDs(_ context.Context, n *Node) findings {
	var f findings
	var kubelets [2][]idRange
	for i, file := range []string{"/etc/subuid", "/etc/subgid"} {
		all, wrong := n.ranges(file)
		for _, line := range wrong {
			f.add(Warning, "Write it as NAME:FIRST:COUNT (subuid(5)).", "%s: the line %q is not valid", file, line)
		}
		for _, r := range all {
			if r.owner == "kubelet" {
				kubelets[i] = append(kubelets[i], r)
			}
		}
		f.overlaps(file, all)
	}
	if !slices.Equal(kubelets[0], kubelets[1]) {
		f.add(Error, "Give kubelet the same line in both files.", "kubelet has other ranges in /etc/subuid than in /etc/subgid, so it makes no pod with a user namespace")
	}
	for _, r := range kubelets[0] {
		if r.first%podIDs != 0 || r.length%podIDs != 0 || r.first < podIDs {
			f.add(Error, "Use multiples of 65536, and begin at 65536 or later.", "the line %s of /etc/subuid is not usable for the kubelet", r)
		} else if r.length < 110*podIDs {
			f.add(Warning, "Give it 65536 times the number of pods (110 is the kubelet's default).", "the line %s of /etc/subuid has IDs for %d pods only", r, r.length/podIDs)
		}
	}
	if len(kubelets[0]) > 0 {
		if _, err := n.probe.lookPath("getsubids"); err != nil {
			f.add(Warning, "Install getsubids (Debian: uidmap, Fedora: shadow-utils-subid).", "the kubelet reads its line by getsubids, which is not in $PATH")
		}
		return f.or("the kubelet's line is %s", kubelets[0][0])
	}
	return f.or("no line for kubelet: it uses its own default range")
}

// overlaps finds users whose IDs are also others'. Lines of one user may be the same.
func (f *findings) overlaps(file string, all []idRange) {
	for i, a := range all {
		for _, b := range all[:i] {
			if a.owner != b.owner && a.first < b.first+b.length && b.first < a.first+a.length {
				f.add(Warning, "Give each user IDs of its own: a pod could otherwise use the files of another's.", "%s: the lines %s and %s overlap", file, b, a)
			}
		}
	}
}
