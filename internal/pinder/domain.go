package pinder

import (
	"errors"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// domain is how a container's processes are told from all others. It is noted while the container's init waits to
// run its program: later a process may have been moved anywhere.
type domain struct {
	// Groups are the container's own groups, as /proc/PID/cgroup names them in any hierarchy.
	Groups []string `json:"groups,omitempty"`
	// MountNS is the kernel's number of its mount namespace, which is never given again; 0 before Linux 6.11.
	MountNS uint64 `json:"mountNS,omitempty"`
	// PIDNamespace: the init is PID 1 of its PID namespace, so that its end is that of all processes in it.
	PIDNamespace bool `json:"pidNamespace,omitempty"`
}

// domainOf looks at the init of container id.
func domainOf(pid int, id string) domain {
	return domain{Groups: ownGroups(pid, id), MountNS: mountNS(pid), PIDNamespace: isFirst(pid)}
}

// ownGroups are the groups of the process that have the container's name.
func ownGroups(pid int, id string) []string { return namedAfter(id, groupsOf(pid)) }

// namedAfter are those of groups that have the container's name, each once, without what is below them.
func namedAfter(id string, groups []string) []string {
	var own []string
	for _, group := range groups {
		if g := cutAtName(group, id); g != "" && !slices.Contains(own, g) {
			own = append(own, g)
		}
	}
	return own
}

// cutAtName shortens a group's path to the last part that is the container's: its ID, or a systemd scope for it.
// "" if there is none.
func cutAtName(group, id string) string {
	for ; group != "/" && group != "." && group != ""; group = path.Dir(group) {
		if base := path.Base(group); base == id || strings.HasSuffix(base, "-"+id) || strings.HasSuffix(base, "-"+id+".scope") {
			return group
		}
	}
	return ""
}

// groupsOf are a process's groups in all hierarchies, none if it has ended.
func groupsOf(pid int) []string {
	list, err := memberships(pid)
	if err != nil {
		return nil
	}
	var groups []string
	for _, m := range list {
		groups = append(groups, m.group)
	}
	return groups
}

// within says whether one of groups is one of those in own, or below it.
func within(groups, own []string) bool {
	for _, g := range groups {
		for _, o := range own {
			if g == o || strings.HasPrefix(g, o+"/") {
				return true
			}
		}
	}
	return false
}

// nsGetMntNSID is NS_GET_MNTNS_ID of linux/nsfs.h (Linux 6.11): _IOR(0xb7, 0x5, __u64).
const nsGetMntNSID = 0x8008b705

// mountNS is the number of a process's mount namespace, 0 if it is our own or cannot be told.
func mountNS(pid int) uint64 {
	id := mountNSNumber("/proc/" + strconv.Itoa(pid) + "/ns/mnt")
	if id == mountNSNumber("/proc/self/ns/mnt") {
		return 0
	}
	return id
}

func mountNSNumber(path string) uint64 {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer func() { _ = unix.Close(fd) }()
	var id uint64
	if ioctlUint64(fd, nsGetMntNSID, &id) != nil {
		return 0
	}
	return id
}

// isFirst says whether a process is PID 1 of a PID namespace other than ours: the last number of the line NSpid of
// proc_pid_status(5).
func isFirst(pid int) bool {
	fields := strings.Fields(statusLine(pid, "NSpid:"))
	return len(fields) > 1 && fields[len(fields)-1] == "1"
}

// statusLine is what stands behind name in /proc/PID/status.
func statusLine(pid int, name string) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// task is a process as /proc/PID/stat shows it.
type task struct {
	pid, parent int
	start       uint64
	state       byte
	threads     uint64
	groups      []string // in all hierarchies; set by tasks
}

// dead says that nothing of the process runs any more. The main thread may have ended before others.
func (t *task) dead() bool { return (t.state == 'Z' || t.state == 'X') && t.threads <= 1 }

func readTask(pid int) (task, error) {
	f, err := statFields(pid)
	if err != nil {
		return task{}, err
	}
	if len(f) < 20 {
		return task{}, errors.New("/proc/PID/stat: fields are missing")
	}
	t := task{pid: pid, state: f[0][0]}
	t.parent, err = strconv.Atoi(string(f[4-3]))
	if err == nil {
		t.threads, err = strconv.ParseUint(string(f[20-3]), 10, 64)
	}
	if err == nil {
		t.start, err = strconv.ParseUint(string(f[22-3]), 10, 64)
	}
	return t, err
}

// tasks are all processes of the node.
func tasks() (map[int]task, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	all := map[int]task{}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		t, err := readTask(pid)
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
			return nil, err // it has not ended for that
		}
		if err == nil {
			t.groups = groupsOf(pid)
			all[pid] = t
		}
	}
	return all, nil
}

// looks are views of all processes of the node, one at a time. All that ask before one begins share it: a hundred
// kills at once, as of probes that time out together, would else each read all of /proc again and again.
type looks struct {
	turn sync.Mutex // held while one is taken
	mu   sync.Mutex
	next *look
}

// look is one view.
type look struct {
	of    *looks
	taken sync.Once
	all   map[int]task
	err   error
}

var processes looks

// upcoming is the view that has not begun yet.
func (s *looks) upcoming() *look {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil {
		s.next = &look{of: s}
	}
	return s.next
}

// get waits for the view. It is shared, and not to be changed.
func (l *look) get() (map[int]task, error) {
	l.taken.Do(func() {
		l.of.turn.Lock()
		defer l.of.turn.Unlock()
		l.of.mu.Lock()
		l.of.next = nil
		l.of.mu.Unlock()
		l.all, l.err = tasks()
	})
	return l.all, l.err
}

// descends says whether one of the ancestors of t is in roots. A child is never older than its parent: a pid that
// was given again while we read leads nowhere.
func descends(all map[int]task, t task, roots map[int]bool) bool {
	for range 1000 {
		parent, ok := all[t.parent]
		switch {
		case roots[t.parent]:
			return true
		case !ok || parent.start > t.start:
			return false
		}
		t = parent
	}
	return false
}
