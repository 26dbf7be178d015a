package keeper

import (
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/pinder/oci"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// A process may not end although it was sent SIGKILL: in a frozen group of version 1's freezer it takes the signal
// only when it is thawed, and in uninterruptible sleep only when it wakes. And a container's group may not hold all
// its processes: some may have been moved. So to kill is a loop: look for living processes, send SIGKILL, take them
// out of frozen groups, and look again. cgroup.Group.Kill is not enough here: it kills what is in one group.

const (
	// killLimit is how long processes may take to end after SIGKILL before that is an error.
	killLimit = 10 * time.Second
	// promptEnd is how long PID 1, and with it its PID namespace, may take to end before all processes of the node are
	// searched for the reason.
	promptEnd  = 100 * time.Millisecond
	killPause  = 5 * time.Millisecond
	maxPause   = 200 * time.Millisecond
	namedTasks = 4 // how many processes an error names
)

// killing kills all processes of a container, or of an exec.
type killing struct {
	pidfd int          // of the container's init or the exec'd process, -1: none; ours to close
	root  int          // its pid, 0: none
	roots map[int]bool // whose descendants may be ours
	own   domain
	// foreign are the groups of other containers. Their processes are left alone.
	foreign []string
	// family says that all descendants of the root are killed with it, as those of an exec are.
	family bool
	kill   string // the cgroup.kill file, "" if there is none
}

// killingOf prepares the kill of a container or an exec, which may have ended already.
func (p *process) killingOf() (*killing, error) {
	m := p.snapshot()
	// A descriptor of our own stays valid when the process is removed meanwhile. It is -1 if there never was a
	// process, or if it is known to have ended.
	pidfd, err := p.handles.duplicate(kindPidfd)
	if err != nil {
		return nil, err
	}
	k := &killing{pidfd: pidfd, root: m.PID, own: m.Domain, kill: m.Cgroup.Kill}
	k.roots = map[int]bool{os.Getpid(): true, os.Getppid(): true}
	if m.ExecID != "" {
		k.family = true
		k.roots = map[int]bool{m.PID: m.PID != 0}
		if m.Group != "" {
			k.own.Groups = []string{groupPath(m.Group)}
			k.kill = cgroup.Group(m.Group).KillFile()
		}
		return k, nil
	}
	if m.PID != 0 {
		k.roots[m.PID] = true
		if len(k.own.Groups) == 0 { // an older pinder made it
			k.own.Groups = ownGroups(m.PID, m.ID)
		}
	}
	for _, other := range p.keeper.all() {
		o := other.snapshot()
		switch {
		case o.ID != m.ID:
			k.foreign = append(k.foreign, o.Domain.Groups...)
		case o.ExecID != "" && o.PID != 0 && o.Phase != wire.PhaseExited:
			k.roots[o.PID] = true
		}
	}
	return k, nil
}

// end kills until nothing of the container or exec is left, or until the deadline. The error says why processes have
// not ended.
func (p *process) end(deadline time.Time) error {
	k, err := p.killingOf()
	if err != nil {
		return err
	}
	defer k.close()
	return k.run(deadline)
}

func (k *killing) close() {
	if k.pidfd >= 0 {
		_ = unix.Close(k.pidfd)
	}
}

func (k *killing) run(deadline time.Time) error {
	if k.own.PIDNamespace && !k.family {
		// The kernel ends all processes of a PID namespace with its PID 1 (pid_namespaces(7)).
		if k.rootEnded() || k.signalRoot() == nil && k.awaitRoot(promptEnd) {
			return nil
		}
	}
	if k.pidfd < 0 && len(k.own.Groups) == 0 && k.own.MountNS == 0 {
		return nil // there never was a process
	}
	var refused error // by the kernel, the last time
	for pause, struck := killPause, false; ; pause, struck = min(2*pause, maxPause), true {
		left, err := k.members()
		if err != nil {
			return fmt.Errorf("look for its processes: %w", err)
		}
		if len(left) == 0 && k.rootEnded() {
			return nil
		}
		// On a busy node the first view may take all the time.
		if struck && time.Now().After(deadline) {
			return k.notEnded(left, refused)
		}
		refused = k.signalRoot()
		for _, t := range left {
			refused = errors.Join(refused, signalTask(t))
		}
		if k.rootEnded() {
			time.Sleep(pause) // there is no event for the ends of the others
		} else {
			k.awaitRoot(pause)
		}
	}
}

func (k *killing) rootEnded() bool { return k.pidfd < 0 || proc.Ended(k.pidfd) }

// awaitRoot waits for the end of the container's init or of the exec'd process.
func (k *killing) awaitRoot(limit time.Duration) bool {
	if k.pidfd < 0 {
		return true
	}
	for until := time.Now().Add(limit); ; {
		p := []unix.PollFd{{Fd: int32(k.pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, int(max(0, time.Until(until)/time.Millisecond)))
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n > 0
		}
	}
}

// signalRoot sends SIGKILL to the root, and to all of its group. There may be more processes that are not in the
// group.
func (k *killing) signalRoot() error {
	if k.kill != "" {
		_ = os.WriteFile(k.kill, []byte("1"), 0) // whether that helped is seen below
	}
	if k.pidfd < 0 {
		return nil
	}
	if err := unix.PidfdSendSignal(k.pidfd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal to process %d: %w", k.root, err)
	}
	if !proc.Ended(k.pidfd) {
		hierarchies().Unfreeze(k.root)
	}
	return nil
}

// members returns the living processes that are to be killed.
func (k *killing) members() ([]proc.Stat, error) {
	now, err := processes.upcoming().get()
	if err != nil {
		return nil, err
	}
	// The root's PID is its own until it has ended. Afterwards it may be another process's.
	family := k.family && !k.rootEnded()
	var found []proc.Stat
	for pid, t := range now.processes {
		if pid <= 1 || pid == os.Getpid() || pid == os.Getppid() || t.Dead() {
			continue
		}
		if family && proc.Descends(now.processes, t, k.roots) || k.owns(now, t) {
			found = append(found, t)
		}
	}
	sort.Slice(found, func(i, j int) bool { return found[i].PID < found[j].PID }) // smaller than slices.SortFunc, which is compiled for each type
	return found, nil
}

// owns reports whether a process is to be killed: it is in one of the container's groups, or it has left them but is
// in the container's mount namespace and descends from pinder. Others in the namespace, such as an operator's nsenter,
// are left alone. A process that has left groups and namespace does not belong to the container any more.
func (k *killing) owns(now view, t proc.Stat) bool {
	if t.PID == k.root && k.pidfd >= 0 {
		return !proc.Ended(k.pidfd)
	}
	groups := now.groups[t.PID]
	if cgroup.Within(groups, k.own.Groups) {
		return true
	}
	return k.own.MountNS != 0 && !cgroup.Within(groups, k.foreign) && proc.Descends(now.processes, t, k.roots) && proc.MountNamespace(t.PID) == k.own.MountNS
}

// signalTask sends SIGKILL to a process that was found in /proc, if it is still that one.
func signalTask(t proc.Stat) error {
	fd, err := unix.PidfdOpen(t.PID, 0)
	if err != nil {
		return nil // ended
	}
	defer func() { _ = unix.Close(fd) }()
	if t.Check() != nil {
		return nil // ended
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal to process %d: %w", t.PID, err)
	}
	if !proc.Ended(fd) {
		hierarchies().Unfreeze(t.PID)
	}
	return nil
}

// notEnded says why processes have not ended.
func (k *killing) notEnded(left []proc.Stat, refused error) error {
	var why []string
	for i, t := range left {
		if i == namedTasks {
			why = append(why, fmt.Sprintf("and %d more", len(left)-i))
			break
		}
		why = append(why, fmt.Sprintf("process %d %s", t.PID, k.whyAlive(t)))
	}
	if len(left) == 0 {
		why = append(why, fmt.Sprintf("process %d %s", k.root, k.whyAlive(proc.Stat{Process: proc.Process{PID: k.root}})))
	}
	text := "not ended after SIGKILL: " + strings.Join(why, "; ")
	if refused != nil {
		return fmt.Errorf("%s (%w)", text, refused)
	}
	return errors.New(text)
}

// whyAlive says why one process has not ended.
func (k *killing) whyAlive(t proc.Stat) string {
	if now, err := proc.ReadStat(t.PID); err == nil {
		t = now
	}
	if group := hierarchies().FreezingGroup(t.PID); group != "" {
		return "is frozen by " + string(group)
	}
	switch t.State {
	case 'D':
		if at := proc.WaitChannel(t.PID); at != "" {
			return "is in uninterruptible sleep, in " + at
		}
		return "is in uninterruptible sleep"
	case 't':
		return "is held by its debugger, process " + proc.Status(t.PID, "TracerPid")
	case 'T':
		return "is stopped"
	}
	if t.PID == k.root {
		if others := sharers(t.PID); others != "" {
			return "waits for others of its PID namespace: " + others
		}
	}
	if t.State == 'Z' {
		return "has ended but for other threads"
	}
	return "is " + proc.Status(t.PID, "State")
}

// sharers returns the other processes of a PID namespace. Its PID 1 ends only when all of them are reaped, each by its
// parent. A parent may be outside of the namespace, as that of an nsenter is.
func sharers(pid int) string {
	want := proc.PIDNamespace(pid)
	all, err := proc.All()
	if err != nil || want == "" || want == proc.PIDNamespace(os.Getpid()) {
		return ""
	}
	var found []string
	for other, t := range all {
		if other == pid || proc.PIDNamespace(other) != want {
			continue
		}
		text := fmt.Sprintf("process %d (%s)", other, proc.Status(other, "State"))
		if t.Dead() {
			text += fmt.Sprintf(" of parent %d", t.Parent)
			if tracer := proc.Status(other, "TracerPid"); tracer != "0" {
				text += ", held by its debugger, process " + tracer
			}
		}
		if found = append(found, text); len(found) == namedTasks {
			break
		}
	}
	return strings.Join(found, ", ")
}

// killAll kills every process of the container. The answer comes when they have ended, or says why they have not.
func (k *Keeper) killAll(r wire.Call) error {
	p, err := k.lookup(r.ID, "")
	if err != nil {
		return err
	}
	if err := p.end(oci.DeadlineAfter(r.TimeoutMillis)); err != nil {
		return wire.Errorf(wire.CodeDeadlineExceeded, "kill: %s: %v", p.describe(), err)
	}
	return nil
}
