package pod

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"

	"github.com/pinfold-run/pinfold/internal/record"
)

// Records keeps the records of pods and containers: on disk, in the objects, and as the events that changes of them are.
type Records struct {
	store  *record.Store
	events *Events
	life   life
	log    *slog.Logger
}

// NewRecords returns the records in the store. Changes of them are added to events and logged.
func NewRecords(store *record.Store, events *Events, log *slog.Logger) *Records {
	return &Records{store: store, events: events, life: life{log, events.book}, log: log}
}

const (
	podsDir       = "pods"
	containersDir = "containers"
	// nodeKey is the record of what the kubelet said of the node as a whole.
	nodeKey = "node"
)

func sandboxKey(id string) string { return podsDir + "/" + id + "/pod" }

func containerKey(sandbox, id string) string {
	return podsDir + "/" + sandbox + "/" + containersDir + "/" + id
}

// Intend writes the first record of a sandbox. durable returns when it is on the disk.
func (r *Records) Intend(s *Sandbox) (durable func() error, err error) {
	return r.store.Intend(sandboxKey(s.ID), s.Record())
}

// PutSandbox writes a sandbox's record, and changes no object.
func (r *Records) PutSandbox(rec *SandboxRecord) error { return r.store.Put(sandboxKey(rec.ID), rec) }

// PutContainer writes a container's record, and changes no object.
func (r *Records) PutContainer(rec *ContainerRecord) error {
	return r.store.Put(containerKey(rec.Sandbox, rec.ID), rec)
}

// ChangeSandbox stores a changed copy of the record: on disk, then in memory. On an error neither has changed. It is
// for steps that make something. The caller holds the order.
func (r *Records) ChangeSandbox(s *Sandbox, change func(*SandboxRecord)) error {
	rec := *s.Record()
	change(&rec)
	if err := r.PutSandbox(&rec); err != nil {
		return err
	}
	r.sandboxIs(s, &rec)
	return nil
}

// NoteSandbox is ChangeSandbox for steps that take something away. They go on when the disk is full or broken: what a
// record says too much is looked for later, and not found.
func (r *Records) NoteSandbox(s *Sandbox, change func(*SandboxRecord)) {
	err := r.ChangeSandbox(s, change)
	if err == nil {
		return
	}
	r.log.Warn("record not written; the removal goes on", "pod_id", s.ID, "error", err)
	rec := *s.Record()
	change(&rec)
	r.sandboxIs(s, &rec)
}

func (r *Records) sandboxIs(s *Sandbox, rec *SandboxRecord) {
	before := s.Record().State
	s.record.Store(rec)
	r.events.sandboxChanged(s, before, rec.State)
	r.life.sandboxChanged(s, before, rec.State)
}

// ChangeContainer is ChangeSandbox for a container. change may be called again after an error.
func (r *Records) ChangeContainer(c *Container, change func(*ContainerRecord)) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	rec := *c.Record()
	change(&rec)
	if err := r.PutContainer(&rec); err != nil {
		return err
	}
	r.containerIs(c, &rec)
	return nil
}

// AmendContainer changes the record in memory alone: for what only a later record needs, which has it.
func (r *Records) AmendContainer(c *Container, change func(*ContainerRecord)) {
	c.changing.Lock()
	defer c.changing.Unlock()
	rec := *c.Record()
	change(&rec)
	r.containerIs(c, &rec)
}

// NoteContainer is ChangeContainer for what has happened or is being taken away; see NoteSandbox. It reports whether
// the record was written.
func (r *Records) NoteContainer(c *Container, change func(*ContainerRecord)) bool {
	err := r.ChangeContainer(c, change)
	if err == nil {
		return true
	}
	r.log.Warn("record not written; it is tried again", "container_id", c.ID, "error", err)
	c.changing.Lock()
	defer c.changing.Unlock()
	rec := *c.Record()
	change(&rec)
	r.containerIs(c, &rec)
	return false
}

func (r *Records) containerIs(c *Container, rec *ContainerRecord) {
	before := c.Record().State
	c.record.Store(rec)
	r.events.containerChanged(c, before, rec.State)
	r.life.containerChanged(c, before, rec.State)
}

// RemoveSandbox removes a sandbox's record from the disk.
func (r *Records) RemoveSandbox(id string) error { return r.store.Remove(sandboxKey(id)) }

// RemoveContainer removes a container's record from the disk.
func (r *Records) RemoveContainer(c *Container) error {
	return r.store.Remove(containerKey(c.Sandbox, c.ID))
}

// SandboxRemoved marks a sandbox of which nothing is left. The caller holds its order, and has taken it out of the book.
func (r *Records) SandboxRemoved(s *Sandbox) {
	s.Removed = true
	r.events.sandboxRemoved(s)
	r.life.sandboxRemoved(s)
}

// ContainerRemoved is SandboxRemoved for a container.
func (r *Records) ContainerRemoved(c *Container) {
	c.Removed = true
	r.events.containerRemoved(c)
	r.life.containerRemoved(c)
}

// Recall adds to the events what the records tell of the minutes before the daemon was started.
func (r *Records) Recall() { r.events.recall() }

// Sandboxes are the IDs of all directories of sandboxes, with and without a record.
func (r *Records) Sandboxes() ([]string, error) { return r.store.Keys(podsDir) }

// Containers are the IDs of the container records of a sandbox.
func (r *Records) Containers(sandbox string) ([]string, error) {
	names, err := r.store.Keys(filepath.Join(podsDir, sandbox, containersDir))
	// Exit files are beside them.
	return slices.DeleteFunc(names, func(n string) bool { return filepath.Ext(n) != "" }), err
}

// Read is a record that was read. The error is that of a record that is missing, cannot be read or is another's.
type Read[T any] struct {
	Record T
	record.Entry
	Err error
}

// ReadSandbox reads a sandbox's record.
func (r *Records) ReadSandbox(id string) Read[*SandboxRecord] {
	read := Read[*SandboxRecord]{Record: &SandboxRecord{}}
	read.Entry, read.Err = r.store.Get(sandboxKey(id), read.Record)
	if read.Err == nil && read.Record.ID != id {
		read.Err = fmt.Errorf("it names the sandbox %q", read.Record.ID)
	}
	return read
}

// ReadContainer reads a container's record.
func (r *Records) ReadContainer(sandbox, id string) Read[*ContainerRecord] {
	read := Read[*ContainerRecord]{Record: &ContainerRecord{}}
	read.Entry, read.Err = r.store.Get(containerKey(sandbox, id), read.Record)
	if read.Err == nil && read.Record.ID != id {
		read.Err = fmt.Errorf("it names the container %q", read.Record.ID)
	}
	return read
}

// QuarantineSandbox moves a record that cannot be read aside, and says where it is.
func (r *Records) QuarantineSandbox(id string) (where string, err error) {
	return r.store.Quarantine(sandboxKey(id))
}

// QuarantineContainer is QuarantineSandbox for a container's record.
func (r *Records) QuarantineContainer(sandbox, id string) (where string, err error) {
	return r.store.Quarantine(containerKey(sandbox, id))
}

// PutNode writes what the kubelet said of the node.
func (r *Records) PutNode(rec *NodeRecord) error { return r.store.Put(nodeKey, rec) }

// Node is what the kubelet said of the node.
func (r *Records) Node() (NodeRecord, error) {
	var rec NodeRecord
	_, err := r.store.Get(nodeKey, &rec)
	return rec, err
}
