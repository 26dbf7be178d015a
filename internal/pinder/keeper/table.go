package keeper

import (
	"fmt"
	"sort"
	"sync"
	"time"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// table holds all containers and execs.
type table struct {
	mu sync.Mutex
	of map[string]*process // by key
}

func (t *table) all() []*process {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]*process, 0, len(t.of))
	for _, p := range t.of {
		out = append(out, p)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].key < out[j].key }) // smaller than slices.SortFunc, which is compiled for each type
	return out
}

// lookup finds a process.
func (t *table) lookup(id, execID string) (*process, error) {
	t.mu.Lock()
	p := t.of[keyOf(id, execID)]
	t.mu.Unlock()
	if p != nil {
		return p, nil
	}
	if execID != "" {
		return nil, wire.Errorf(wire.CodeNotFound, "exec %s of container %s: not found", execID, id)
	}
	return nil, wire.Errorf(wire.CodeNotFound, "container %s: not found", id)
}

// remember puts p into the table unless its key is taken.
func (t *table) remember(p *process) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of[p.key] != nil {
		return false
	}
	t.of[p.key] = p
	return true
}

func (t *table) forget(p *process) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of[p.key] == p {
		delete(t.of, p.key)
	}
}

// livingExecs is how many execs have not ended.
func (t *table) livingExecs() int {
	n := 0
	for _, p := range t.all() {
		if m := p.snapshot(); m.ExecID != "" && m.Phase != wire.PhaseExited {
			n++
		}
	}
	return n
}

func (t *table) execsOf(id string) []*process {
	var out []*process
	for _, p := range t.all() {
		if m := p.snapshot(); m.ID == id && m.ExecID != "" {
			out = append(out, p)
		}
	}
	return out
}

// list returns all containers. Execs are left out: only the daemon that started one asks for it, by its name.
func (t *table) list() wire.List {
	l := wire.List{Containers: []wire.Container{}}
	for _, p := range t.all() {
		if c := p.container(); c.ExecID == "" {
			l.Containers = append(l.Containers, c)
		}
	}
	return l
}

// missing returns the keys that the daemon offers and pinder does not have.
func (t *table) missing(r wire.Keys) (wire.Keys, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	lost := wire.Keys{Keys: []string{}}
	for _, key := range r.Keys {
		if t.of[key] == nil {
			lost.Keys = append(lost.Keys, key)
		}
	}
	return lost, nil
}

// Ping proves that the table can be locked.
func (t *table) Ping() {
	t.mu.Lock()
	defer t.mu.Unlock()
}

// Object is a container or exec, for the daemon.
type Object struct{ p *process }

// Objects are all containers and execs, in the order of their keys.
func (t *table) Objects() []Object {
	var out []Object
	for _, p := range t.all() {
		out = append(out, Object{p})
	}
	return out
}

// Key names the object to the daemon and the reaper.
func (o Object) Key() string { return o.p.key }

// Duplicates returns descriptors of the caller's own, and what they are.
func (o Object) Duplicates() (kinds []string, fds []int, err error) {
	kinds, fds, err = o.p.handles.duplicates()
	if err != nil {
		err = fmt.Errorf("%s: %w", o.p.key, err)
	}
	return kinds, fds, err
}

// State is what the daemon is told.
func (o Object) State() wire.Container { return o.p.container() }

// Hold waits for the operations that run, at most until the deadline, and lets no other begin until release is called.
func (t *table) Hold(deadline time.Time) (release func()) {
	var held []*process
	for _, p := range t.all() {
		if p.lockOp(deadline) == nil {
			held = append(held, p)
		}
	}
	return func() {
		for _, p := range held {
			p.unlockOp()
		}
	}
}
