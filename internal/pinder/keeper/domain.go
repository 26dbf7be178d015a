package keeper

import (
	"slices"
	"sync"

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
	"github.com/pinfold-run/pinfold/internal/kernel/proc"
)

// domain tells a container's processes from all others. It is read while the container's init waits to run its
// program. Later, a process may have been moved to any group.
type domain struct {
	// Groups are the container's own groups, as /proc/PID/cgroup names them in any hierarchy.
	Groups []string `json:"groups,omitempty"`
	// MountNS is the kernel's number of the container's mount namespace. The kernel does not use a number twice. It is
	// 0 before Linux 6.11.
	MountNS uint64 `json:"mountNS,omitempty"`
	// PIDNamespace says that the init is PID 1 of its PID namespace: when it ends, the kernel ends all processes in
	// it.
	PIDNamespace bool `json:"pidNamespace,omitempty"`
}

// domainOf reads the domain of container id from its init.
func domainOf(pid int, id string) domain {
	return domain{Groups: ownGroups(pid, id), MountNS: proc.MountNamespace(pid), PIDNamespace: proc.IsFirst(pid)}
}

// ownGroups are the groups of the process that have the container's name.
func ownGroups(pid int, id string) []string { return namedAfter(id, groupsOf(pid)) }

// namedAfter returns the groups that have the container's name, each once. A group below one is cut to it.
func namedAfter(id string, groups []string) []string {
	var own []string
	for _, group := range groups {
		if g := cgroup.UpTo(group, id); g != "" && !slices.Contains(own, g) {
			own = append(own, g)
		}
	}
	return own
}

// groupsOf are a process's groups in all hierarchies, none if it has ended.
func groupsOf(pid int) []string {
	list, err := cgroup.Names(pid)
	if err != nil {
		return nil
	}
	return list
}

// view is all processes of the node at one moment.
type view struct {
	processes map[int]proc.Stat
	groups    map[int][]string // of each, in all hierarchies
}

func takeView() (view, error) {
	all, err := proc.All()
	if err != nil {
		return view{}, err
	}
	v := view{processes: all, groups: make(map[int][]string, len(all))}
	for pid := range all {
		v.groups[pid] = groupsOf(pid)
	}
	return v, nil
}

// scans makes views of all processes of the node, one at a time. All callers that ask before a view is begun share it.
// Else each of a hundred kills at once, as of probes that time out together, would read all of /proc again and again.
type scans struct {
	turn sync.Mutex // held while one is taken
	mu   sync.Mutex
	next *scan
}

// scan is one view, made or to be made.
type scan struct {
	of    *scans
	taken sync.Once
	view  view
	err   error
}

var processes scans

// upcoming returns the scan that has not begun yet.
func (s *scans) upcoming() *scan {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil {
		s.next = &scan{of: s}
	}
	return s.next
}

// get waits for the view. Others have it, too: it must not be changed.
func (l *scan) get() (view, error) {
	l.taken.Do(func() {
		l.of.turn.Lock()
		defer l.of.turn.Unlock()
		l.of.mu.Lock()
		l.of.next = nil
		l.of.mu.Unlock()
		l.view, l.err = takeView()
	})
	return l.view, l.err
}
