package pod

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Container is one container in memory.
type Container struct {
	// ID and Sandbox never change.
	ID, Sandbox string
	// Order is held by the one operation on this container that is in progress.
	Order sync.Mutex
	// record is the last stored value. changing is held during a change, since an exit may come at any time.
	record   atomic.Pointer[ContainerRecord]
	changing sync.Mutex
	// Ended is closed when the process has ended and that was recorded.
	Ended chan struct{}
	// Interrupt ends the Do of the Create in progress; set before the container is in the book.
	Interrupt context.CancelCauseFunc
	// Removed is set, under Order, when nothing of the container is left.
	Removed bool
	// announced is set, under Order, when clients may know the container.
	announced bool
	// Stop is what calls of StopContainer agree on.
	Stop Stopping
	InMemory
}

// InMemory is what is known of a container and is in no record. The start of the daemon finds it anew.
type InMemory struct {
	// Starting is when StartContainer began, in Unix nanoseconds; 0 before.
	Starting atomic.Int64
	// Stale is set, by recovery or under Order, while a created container has a process that pinder lost. Its streams
	// are broken, so the process is made anew before it is started.
	Stale atomic.Bool
	// Unsaved is set while the record of the container's end could not be written.
	Unsaved atomic.Bool
	// Draft is set, under Order, while the container is made: the configuration of its bundle, which the last step writes.
	Draft *specs.Spec
	// Reduced is set, under Order, when all that an ended container does not need any more is removed.
	Reduced bool
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
