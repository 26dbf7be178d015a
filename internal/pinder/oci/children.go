package oci

import (
	"errors"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/pinder/ownlog"
)

// Children decides which children that have ended may be reaped.
//
//	claimed            reaped by what claimed it, after its exit is recorded
//	not claimed        stays a zombie until every runtime call that ran when it was first seen has ended: one of them may
//	                   be about to report its PID. Then it is reaped here
//
// So a PID in a runtime's pid file is always that of an unreaped child, and not another process's.
type Children struct {
	kick chan struct{}

	mu      sync.Mutex
	claimed map[int]bool
	calls   map[uint64]bool
	last    uint64         // number of the last call
	seen    map[int]uint64 // by zombie: the last call when it was first seen
	orphan  int            // the zombie that the reaper reported last
}

// NewChildren knows no child yet.
func NewChildren() *Children {
	return &Children{
		kick:    make(chan struct{}, 1),
		claimed: map[int]bool{}, calls: map[uint64]bool{}, seen: map[int]uint64{},
	}
}

// BeginCall says that a runtime call starts. Its children are not reaped before EndCall.
func (c *Children) BeginCall() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	c.calls[c.last] = true
	return c.last
}

// EndCall says that the call of that number has ended.
func (c *Children) EndCall(n uint64) {
	c.mu.Lock()
	delete(c.calls, n)
	c.mu.Unlock()
	c.poke()
}

// Claim says that pid is not to be reaped here before Unclaim. A PID that may not be an unreaped child can be claimed
// only while a call runs.
func (c *Children) Claim(pid int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.claimed[pid] = true
	delete(c.seen, pid)
}

// Unclaim takes a claim back.
func (c *Children) Unclaim(pid int) {
	c.mu.Lock()
	delete(c.claimed, pid)
	c.mu.Unlock()
	c.poke()
}

func (c *Children) poke() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// Reported notes an orphan of the reaper's.
func (c *Children) Reported(pid int) {
	c.mu.Lock()
	c.orphan = pid
	c.mu.Unlock()
	c.poke()
}

// mayReap reports whether nothing has claimed a zombie. The caller holds c.mu.
func (c *Children) mayReap(pid int) bool {
	if c.claimed[pid] {
		return false
	}
	since, ok := c.seen[pid]
	if !ok {
		since = c.last
		c.seen[pid] = since
	}
	for n := range c.calls {
		if n <= since {
			return false
		}
	}
	delete(c.seen, pid)
	return true
}

// Loop reaps what is not claimed, and never returns. waitid returns the first zombie only, so one that has to stay
// delays those behind it. Claimed children are not delayed: each is waited for by its own pidfd.
func (c *Children) Loop(reapOrphan func(pid int) error) {
	sigs := make(chan os.Signal, 1)
	signal.Notify(sigs, unix.SIGCHLD)
	for {
		c.reapUnclaimed()
		c.mu.Lock()
		orphan := c.orphan
		due := orphan != 0 && c.mayReap(orphan)
		if due {
			c.orphan = 0
		}
		c.mu.Unlock()
		if due {
			if err := reapOrphan(orphan); err != nil && !errors.Is(err, unix.ECHILD) {
				ownlog.Printf("reap orphan %d: %v", orphan, err)
			}
		}
		select {
		case <-sigs:
		case <-c.kick:
		}
	}
}

// reapUnclaimed reaps the children that have ended, up to the first that has to stay.
func (c *Children) reapUnclaimed() {
	for {
		c.mu.Lock()
		pid, _, err := proc.Peek(unix.P_ALL, 0)
		if err != nil || pid == 0 || !c.mayReap(pid) {
			c.mu.Unlock()
			return
		}
		_, _, _ = proc.Reap(unix.P_PID, pid)
		c.mu.Unlock()
	}
}
