package lifecycle

import (
	"sync"

	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/selinux"
)

// labels gives SELinux labels to files. On a node without SELinux it does nothing.
type labels struct{ host ocispec.Host }

// of returns the labels of a container's processes and files. If c is nil, they are those of the pod itself. On a node
// without SELinux they are "".
func (l labels) of(r *pod.SandboxRecord, c *pod.ContainerRecord) (process, mount string) {
	s := ocispec.Sandbox{ID: r.ID, Config: r.Config, SELinuxLevel: r.SELinuxLevel}
	if c == nil {
		return ocispec.SELinuxLabels(l.host, s, nil)
	}
	return ocispec.SELinuxLabels(l.host, s, c.Config.ContainerConfig)
}

// set gives the pod's label to files of the pod, but not to what is in a directory.
func (l labels) set(r *pod.SandboxRecord, paths ...string) error {
	_, label := l.of(r, nil)
	if label == "" {
		return nil
	}
	for _, path := range paths {
		if err := selinux.SetLabel(path, label); err != nil {
			return err
		}
	}
	return nil
}

// setVolumes gives the container's label to the host's files, if their mounts ask for it. The label is private to the pod:
// CRI has no word for labels that several pods share. All mounts are checked before the first is changed.
func (l labels) setVolumes(r *pod.SandboxRecord, c *pod.ContainerRecord) error {
	_, label := l.of(r, c)
	if label == "" {
		return nil
	}
	var sources []string
	for i, m := range c.Config.GetMounts() {
		if !m.GetSelinuxRelabel() || m.GetImage() != nil {
			continue
		}
		source, err := hostPath(m.GetHostPath())
		if err == nil {
			err = selinux.MayRelabel(source)
		}
		if err != nil {
			return volumeError(i, m, err)
		}
		sources = append(sources, source)
	}
	for _, source := range sources {
		if err := selinux.Relabel(source, label); err != nil {
			return err
		}
	}
	return nil
}

// levels gives each pod a level of SELinux that no other pod of the node has. The levels in use are in the records. Here are
// only those of pods that are not in the book yet. The zero value is ready.
type levels struct {
	mu sync.Mutex
	// chosen is by the pod's ID.
	chosen map[string]string
}

// maxLevelTries limits the search. With a thousand pods, one try in five hundred fails.
const maxLevelTries = 1000

// choose puts a level into the record of a new pod. The caller calls done when the pod is in the book or has failed. A
// level that the pod's configuration gives is taken as it is; choose gives it to no other pod.
func (l *levels) choose(selinux bool, book *pod.Book, rec *pod.SandboxRecord) (done func()) {
	if !selinux {
		return func() {}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	used := map[string]bool{}
	for _, level := range l.chosen {
		used[level] = true
	}
	for _, box := range book.Sandboxes() {
		used[box.Record().SELinuxLevel] = true
	}
	level := rec.Config.GetLinux().GetSecurityContext().GetSelinuxOptions().GetLevel()
	for n := 0; level == "" && n < maxLevelTries; n++ {
		if try := ocispec.SELinuxLevel(rec.ID, n); !used[try] {
			level = try
		}
	}
	if level == "" {
		// Half a million levels are in use. It is better that two pods share one than that a pod does not start.
		level = ocispec.SELinuxLevel(rec.ID, 0)
	}
	rec.SELinuxLevel = level
	if l.chosen == nil {
		l.chosen = map[string]string{}
	}
	l.chosen[rec.ID] = level
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.chosen, rec.ID)
	}
}
