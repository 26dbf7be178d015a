package containerd

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/pod"
)

// standIn is the process in whose network namespace clients find the pod's, where containerd has a pause process: PID 1 of
// a pod that has one, else the first process of the container that was started first of those that run. So it stays the
// same until it ends. Zero if there is none.
func (o objects) standIn(rec *pod.SandboxRecord) proc.Process {
	if rec.State != pod.Ready {
		return proc.Process{}
	}
	if rec.SharesPID() {
		return rec.Init
	}
	var first *pod.ContainerRecord
	for _, c := range o.book.ContainersOf(rec.ID) {
		if c := c.Record(); c.State == pod.Running && c.Process.PID != 0 && (first == nil || c.Times.Started.Before(first.Times.Started)) {
			first = c
		}
	}
	if first == nil {
		return proc.Process{}
	}
	return first.Process
}

// StandIns keeps an empty group for each pod, named after the pod's ID, below the pod's own group (decision 23). cAdvisor
// knows a pod by the group of its pause process, and asks for the pid in that group once, when it first sees the group.
// So the group is made when the pod has a stand-in, and made anew when it has another one.
//
// Only cgroup2 has these groups: a kubelet of today does not start on anything else. The removal of the pod removes
// its group, too (pod.Places.StandInGroup).
type StandIns struct {
	objects
	events *pod.Events
	root   string
	log    *slog.Logger
	// made says for which stand-in each pod's group was made, as far as this daemon knows.
	made map[string]string
}

// NewStandIns returns a keeper of the groups; nothing is made before Run.
func NewStandIns(p Parts) *StandIns {
	return &StandIns{
		objects: objects{places: p.Places, book: p.Book}, events: p.Events, root: p.Cgroups.Unified, log: p.Log,
		made: map[string]string{},
	}
}

// look is how often all groups are looked at, whatever the events say: another program may have removed one.
const look = 30 * time.Second

// Run keeps the groups until ctx ends, and leaves them then: the pods go on.
func (s *StandIns) Run(ctx context.Context) {
	if s.root == "" {
		s.log.Warn("the kubelet will not see the network statistics of pods through containerd's API: this host has no cgroup2")
		return
	}
	stream := s.events.Follow()
	defer stream.Close()
	for ctx.Err() == nil {
		for _, rec := range s.sandboxRecords() {
			s.keep(rec.ID)
		}
		again, cancel := context.WithTimeout(ctx, look)
		for {
			event, err := stream.Next(again)
			if err != nil {
				break
			}
			if event.Sandbox != nil {
				s.keep(event.Sandbox.ID)
			}
		}
		cancel()
	}
}

// mark is the extended attribute of a group that says for which stand-in it was made.
const mark = "trusted.pinfold.standin"

// keep makes, replaces or removes the group of a pod.
func (s *StandIns) keep(id string) {
	box, err := s.book.Sandbox(id)
	if err != nil || box.ID != id {
		delete(s.made, id)
		return
	}
	rec := box.Record()
	if rec.SharesPID() {
		return // its PID 1 has a group of that name
	}
	dir := filepath.Join(s.root, s.places.StandInGroup(rec))
	if rec.State != pod.Ready {
		s.remove(id, dir)
		return
	}
	process := s.standIn(rec)
	if process.PID == 0 || s.isMade(id, dir, text(process)) {
		return
	}
	s.remove(id, dir)
	if err := os.Mkdir(dir, 0o755); err != nil {
		// The kubelet removes the pod's group after its last container. The start of another one is the next try.
		if !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("the group that stands for a pod was not made: the kubelet has no network statistics of it", "pod_id", id, "error", err)
		}
		return
	}
	s.made[id] = text(process)
	// Without a mark, the next start of the daemon makes the group anew, and cAdvisor begins with it anew.
	_ = unix.Setxattr(dir, mark, []byte(text(process)), 0)
	// A stop that began meanwhile has already removed the group, and does not do it again.
	if box.Record().State != pod.Ready {
		s.remove(id, dir)
	}
}

func (s *StandIns) isMade(id, dir, process string) bool {
	if _, err := os.Lstat(dir); err != nil {
		return false
	}
	if s.made[id] == "" {
		s.made[id] = marked(dir)
	}
	return s.made[id] == process
}

func (s *StandIns) remove(id, dir string) {
	delete(s.made, id)
	if err := cgroup.Group(dir).Remove(); err != nil {
		s.log.Warn("the group that stands for a pod was not removed", "error", err)
	}
}

// marked is what the group's mark says, "" without a group or a mark.
func marked(dir string) string {
	value := make([]byte, 128)
	n, err := unix.Getxattr(dir, mark, value)
	if err != nil {
		return ""
	}
	return string(value[:n])
}

func text(p proc.Process) string {
	return strconv.Itoa(p.PID) + " " + strconv.FormatUint(p.Start, 10)
}
