package stats

import (
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
)

const (
	// groupAge is how long the group of a container is taken for known. It is looked for at once if it is not there any
	// more.
	groupAge = time.Minute
	// mostBelow limits the groups below one whose names are remembered.
	mostBelow = 64
)

// known remembers where the groups of containers are and which groups are below those of pods, by the ID of the container or
// pod. A process in a container may move to other groups, and never out of the one that is named after the container.
type known struct {
	mu sync.Mutex
	of map[string]*knownGroup
}

type knownGroup struct {
	process proc.Process
	group   Group
	// found is when group was found, zero if there is none; asked is when a client asked for it last.
	found, asked time.Time
	// below are the names of the groups below it that were seen last.
	below []string
}

// group returns the group of a container, false if it is not known.
func (k *known) group(c Container, now time.Time) (Group, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	one := k.of[c.ID]
	if one == nil || one.process != c.Process || now.Sub(one.found) >= groupAge {
		return Group{}, false
	}
	one.asked = now
	return one.group, true
}

func (k *known) setGroup(c Container, g Group, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	one := k.entry(c.ID)
	one.process, one.group, one.found, one.asked = c.Process, g, now, now
}

func (k *known) below(id string) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if one := k.of[id]; one != nil {
		one.asked = time.Now()
		return one.below
	}
	return nil
}

func (k *known) setBelow(id string, names []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	one := k.entry(id)
	one.below, one.asked = slices.Clip(names), time.Now()
}

// The caller of entry holds mu.
func (k *known) entry(id string) *knownGroup {
	if k.of == nil {
		k.of = map[string]*knownGroup{}
	}
	if k.of[id] == nil {
		k.of[id] = &knownGroup{}
	}
	return k.of[id]
}

func (k *known) forget(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.of, id)
}

// keep forgets what was not asked for since then.
func (k *known) keep(since time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, one := range k.of {
		if one.asked.Before(since) {
			delete(k.of, id)
		}
	}
}

// groupOf is GroupOf, and remembers what it finds.
func (r *Reader) groupOf(c Container) (g Group, cached bool, err error) {
	now := time.Now()
	// Where the process is gone, and its PID not given to another, the group may still be there.
	if g, ok := r.known.group(c, now); ok && !errors.Is(unix.Kill(c.Process.PID, 0), unix.ESRCH) {
		return g, true, nil
	}
	g, err = r.GroupOf(c.Process, c.ID)
	if err != nil {
		r.known.forget(c.ID)
		return Group{}, false, err
	}
	above := g.Parent()
	g.above = &above
	r.known.setGroup(c, g, now)
	return g, false, nil
}
