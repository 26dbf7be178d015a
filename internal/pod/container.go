package pod

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/pinfold-run/pinfold/internal/pinder/client"
)

// Container is one container in memory.
type Container struct {
	// ID and Sandbox never change.
	ID, Sandbox string
	// order is held by the one operation on this container that is in progress.
	order sync.Mutex
	// record is the last stored value; changing guards the exchange, since an exit arrives at any time.
	record   atomic.Pointer[ContainerRecord]
	changing sync.Mutex
	// ended is closed when the process has ended and that was recorded.
	ended chan struct{}
	// interrupt ends the Do of the Create in progress; set before the container is in the book.
	interrupt context.CancelCauseFunc
	// unsaved is set while the record of the container's end could not be written.
	unsaved atomic.Bool
	// settled is set, under order, when an ended container has given back what it needs no more.
	settled bool
	// erased is set, under order, when nothing of the container is left.
	erased bool
	// announced is set, under order, when clients may know the container.
	announced bool
	// stop is what calls of StopContainer agree on.
	stop stopping
	// starting is when StartContainer began, in Unix nanoseconds; 0 before.
	starting atomic.Int64
	// stale is set, by recovery or under order, while a created container has a process that pinder lost: its
	// streams are broken, so it is made anew before it is started.
	stale atomic.Bool
}

// Record returns the current value; it must not be changed.
func (c *Container) Record() *ContainerRecord { return c.record.Load() }

func newContainer(rec *ContainerRecord) *Container {
	c := &Container{ID: rec.ID, Sandbox: rec.Sandbox, ended: make(chan struct{}), announced: rec.State != Creating}
	c.stop.killAt, c.stop.signalled = rec.Times.KillAt, !rec.Times.Signalled.IsZero()
	c.record.Store(rec)
	if rec.State == Exited {
		close(c.ended)
	}
	return c
}

// containerIdentity is what makes two CreateContainer requests in one sandbox the same one.
func containerIdentity(r *ContainerRecord) string {
	m := r.Config.GetMetadata()
	return m.GetName() + "/" + strconv.Itoa(int(m.GetAttempt()))
}

// changeContainer stores a changed copy of the record: on disk, then in memory. On an error neither
// has changed. change may be called again after an error.
func (n *Node) changeContainer(c *Container, change func(*ContainerRecord)) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	rec := *c.Record()
	before := rec.State
	change(&rec)
	if err := n.Records.Put(containerKey(c.Sandbox, c.ID), &rec); err != nil {
		return err
	}
	c.record.Store(&rec)
	n.Events.containerChanged(c, before, rec.State)
	return nil
}

// noteContainer is changeContainer for what has happened or is being taken away; see noteSandbox. It
// reports whether the record was written.
func (n *Node) noteContainer(c *Container, change func(*ContainerRecord)) bool {
	err := n.changeContainer(c, change)
	if err == nil {
		return true
	}
	n.Log.Warn("record not written; it is tried again", "container", c.ID, "error", err)
	c.changing.Lock()
	defer c.changing.Unlock()
	rec := *c.Record()
	before := rec.State
	change(&rec)
	c.record.Store(&rec)
	n.Events.containerChanged(c, before, rec.State)
	return false
}

// exitStatus translates pinder's word into CRI's.
func exitStatus(e client.Exit) ExitStatus {
	status := ExitStatus{Code: e.Code, Reason: "Completed"}
	switch {
	case e.Unknown:
		status = ExitStatus{
			Code: unknownExit, Reason: "Unknown",
			Message: "the container ended while neither pinfoldd nor pinder was there to learn how",
		}
	case e.OOMKilled:
		status.Reason = "OOMKilled"
	case e.Code != 0:
		status.Reason = "Error"
	}
	return status
}

// unknownExit is what CRI's clients show for an exit code that is not known.
const unknownExit = 255
