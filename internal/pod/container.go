package pod

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// Container is one container in memory.
type Container struct {
	// ID and Sandbox never change.
	ID, Sandbox string
	// Order is held by the one operation on this container that is in progress.
	Order sync.Mutex
	// record is the last stored value; changing guards the exchange, since an exit arrives at any time.
	record   atomic.Pointer[ContainerRecord]
	changing sync.Mutex
	// Ended is closed when the process has ended and that was recorded.
	Ended chan struct{}
	// Interrupt ends the Do of the Create in progress; set before the container is in the book.
	Interrupt context.CancelCauseFunc
	// Unsaved is set while the record of the container's end could not be written.
	Unsaved atomic.Bool
	// Settled is set, under order, when an ended container has given back what it needs no more.
	Settled bool
	// Erased is set, under order, when nothing of the container is left.
	Erased bool
	// announced is set, under order, when clients may know the container.
	announced bool
	// Stop is what calls of StopContainer agree on.
	Stop stopping
	// Starting is when StartContainer began, in Unix nanoseconds; 0 before.
	Starting atomic.Int64
	// Stale is set, by recovery or under order, while a created container has a process that pinder lost: its
	// streams are broken, so it is made anew before it is started.
	Stale atomic.Bool
}

// Record returns the current value; it must not be changed.
func (c *Container) Record() *ContainerRecord { return c.record.Load() }

// NewContainer returns the container of a record.
func NewContainer(rec *ContainerRecord) *Container {
	c := &Container{ID: rec.ID, Sandbox: rec.Sandbox, Ended: make(chan struct{}), announced: rec.State != Creating}
	c.Stop.killAt, c.Stop.signalled = rec.Times.KillAt, !rec.Times.Signalled.IsZero()
	c.record.Store(rec)
	if rec.State == Exited {
		close(c.Ended)
	}
	return c
}

// ChangeContainer stores a changed copy of the record: on disk, then in memory. On an error neither
// has changed. change may be called again after an error.
func (n *Node) ChangeContainer(c *Container, change func(*ContainerRecord)) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	rec := *c.Record()
	before := rec.State
	change(&rec)
	if err := n.Records.Put(ContainerKey(c.Sandbox, c.ID), &rec); err != nil {
		return err
	}
	c.record.Store(&rec)
	n.Events.containerChanged(c, before, rec.State)
	return nil
}

// NoteContainer is changeContainer for what has happened or is being taken away; see NoteSandbox. It
// reports whether the record was written.
func (n *Node) NoteContainer(c *Container, change func(*ContainerRecord)) bool {
	err := n.ChangeContainer(c, change)
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
func StatusOf(e wire.Exit) ExitStatus {
	status := ExitStatus{Code: e.Code, Reason: "Completed"}
	switch {
	case e.Unknown:
		status = ExitStatus{
			Code: UnknownExit, Reason: "Unknown",
			Message: "the container ended while neither pinfoldd nor pinder was there to learn how",
		}
	case e.OOMKilled:
		status.Reason = "OOMKilled"
	case e.Code != 0:
		status.Reason = "Error"
	}
	return status
}

// UnknownExit is what CRI's clients show for an exit code that is not known.
const UnknownExit = 255

// Images are the IDs of the images that a container uses, without repetition; none before they are known.
func (r *ContainerRecord) Images() []string {
	ids := []string{r.Image}
	for _, m := range r.Mounts {
		ids = append(ids, m.Image)
	}
	slices.Sort(ids)
	return slices.DeleteFunc(slices.Compact(ids), func(id string) bool { return id == "" })
}

// Identity is what makes two CreateContainer requests in one sandbox the same one.
func (r *ContainerRecord) Identity() string {
	m := r.Config.GetMetadata()
	return m.GetName() + "/" + strconv.Itoa(int(m.GetAttempt()))
}

// Object names the container in errors, timelines and flights.
func (r *ContainerRecord) Object() string {
	return fmt.Sprintf("container %s (%s/%s)", r.ID, r.Sandbox, r.Identity())
}
