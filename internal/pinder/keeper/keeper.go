// Package keeper has the supervisor's containers and execs: it makes them with the OCI runtime, watches them, and ends
// them.
//
// # A container or exec
//
// A process is one container (its init) or one exec. Its parts:
//
//	meta        what a next supervisor has to know, in shared memory (state.go)
//	handles     its descriptors; the reaper and the daemon hold duplicates
//	log pump    moves its output to its log (package logpump)
//	exit watch  waits for its end and makes that known (exit.go)
//
// What works on it:
//
//	Keeper      answers the daemon's requests about containers
//	execs       answers the daemon's requests about execs
//	creation    makes a container; launch is the call of the runtime that leaves a process
//	resumption  goes on with what a dead supervisor had
//	killing     kills what belongs to it, wherever it is
//	oom         tells whose OOM kill it was
//
// # Exit codes
//
// The kernel keeps them: a container's zombie is reaped only after its exit record is written. Where the code is read
// depends on whose child the container is by then:
//
//	its parent                       the code is read with            and stays there until
//	this supervisor                  waitid(WNOWAIT) on the pidfd     this supervisor reaps it
//	the reaper (a supervisor died)   a request to the reaper          this supervisor asks the reaper to reap it
//	another process (both died)      /proc/PID/stat of the zombie     its parent reaps it, at any time
//	none: it is reaped               the pidfd, on Linux 6.15         the pidfd is closed
//
// So an exit is unknown only before Linux 6.15, and only if both processes of pinder were killed: at once, or the reaper
// after the container had become its child. The machine's init is then the parent, and reaps. A PID is never used without a
// pidfd, except for our own unreaped children, whose PIDs cannot be reused.
//
// # Locks
//
// In this order, outermost first; any may be skipped:
//
//	process.op            one runtime operation of one container (seconds)
//	  oom.mu              one comparison of OOM counters (no blocking)
//	  logpump.Pump.mu     one log write of one container (a disk's latency)
//	    process.keeping   one hand-over of descriptors (the reaper's latency)
//	      process.mu      the container's state (no blocking)
//	        handles.mu    its descriptors (no blocking)
//	          table.mu    the table of containers and execs (no blocking)
//
// No lock common to two containers is held across a system call that can block on a container, a runtime or a disk.
package keeper

import (
	"path/filepath"

	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
	"github.com/pinfold-run/pinfold/internal/pinder/link"
	"github.com/pinfold-run/pinfold/internal/pinder/logpump"
	"github.com/pinfold-run/pinfold/internal/pinder/oci"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// Keeper makes, watches and ends containers and execs.
type Keeper struct {
	table
	admission
	oom        oom
	execs      execs
	calls      *oci.Caller
	unfinished *oci.Unfinished
	reaper     *link.Reaper
	// tell sends an event to all daemons. It closes the descriptors.
	tell func(typ string, body any, fds []int)
}

// New returns a Keeper without containers. children are those of this process.
func New(dir string, r *link.Reaper, children *oci.Children, tell func(typ string, body any, fds []int)) (*Keeper, error) {
	k := &Keeper{table: table{of: map[string]*process{}}, reaper: r, tell: tell}
	k.oom.table, k.execs.keeper = &k.table, k
	var err error
	if k.calls, err = oci.NewCaller(filepath.Join(dir, "calls"), children); err != nil {
		return nil, err
	}
	k.calls.Ran = func(r wire.Ran) { k.tell(wire.TypeRan, r, nil) }
	k.unfinished = oci.FindUnfinished(k.calls.Dir, dir)
	return k, nil
}

// Held is what another process holds of a container or exec.
type Held struct {
	Key   string
	Kinds []string
	FDs   []int
}

// LockAll returns all descriptors. None is closed or replaced until unlock is called: the locks of all objects, which
// nothing else takes together, are held.
func (k *Keeper) LockAll() (objects []Held, unlock func()) {
	var unlocks []func()
	for _, p := range k.all() {
		p.mu.Lock()
		unlocks = append(unlocks, p.mu.Unlock)
		if p.meta.Phase == wire.PhaseDeleted {
			continue
		}
		kinds, fds, unlock := p.handles.lock()
		unlocks = append(unlocks, unlock)
		objects = append(objects, Held{p.key, kinds, fds})
	}
	return objects, func() {
		for _, unlock := range unlocks {
			unlock()
		}
	}
}

// newProcess makes a process with fresh shared state; the caller holds its op lock.
func (k *Keeper) newProcess(m meta) (*process, error) {
	st, err := newState()
	if err != nil {
		return nil, err
	}
	p := k.wrap(keyOf(m.ID, m.ExecID), st, m)
	p.op <- struct{}{}
	if err := p.update(func(*meta) {}); err != nil {
		st.close()
		return nil, err
	}
	return p, nil
}

func (k *Keeper) wrap(key string, st *sharedState, m meta) *process {
	p := &process{
		key: key, keeper: k, meta: m, state: st,
		op:      make(chan struct{}, 1),
		handles: handles{of: map[string]*descriptor.Handle{kindState: {FD: st.fd}}},
	}
	p.exit = &exitWatch{p: p, recorded: make(chan struct{})}
	p.pump = logpump.New(&st.log, p.describe, p.hasExited)
	return p
}
