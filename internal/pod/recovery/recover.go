package recovery

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/fault"
	"github.com/pinfold-run/pinfold/internal/network"
	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/pod/lifecycle"
	"github.com/pinfold-run/pinfold/internal/tree"
)

// Recovery makes the book agree with records, pinder and kernel when the daemon starts. It takes one object after the
// other. What is wrong with one becomes its reason, and does not stop the others. What is left to undo is put on the list
// of debts, and done while the daemon serves.
type Recovery struct {
	*unrecorded
	containers *lifecycle.Containers
	debts      *Debts
	// rebooted are the containers that ran when the node went down; set by Load.
	rebooted []*pod.Container
	results  map[Found]int
}

// New returns the recovery of what the operations make. The list of debts is that of base.
func New(base lifecycle.Base, parts Parts, sandboxes *lifecycle.Sandboxes, containers *lifecycle.Containers, debts *Debts) *Recovery {
	return &Recovery{unrecorded: &unrecorded{Base: base, Parts: parts, sandboxes: sandboxes}, containers: containers, debts: debts, results: none()}
}

// Load reads all records into the book. It needs only the records, and comes before pinder is connected: pinder reports
// exits at once, and their containers have to be in the book.
func (r *Recovery) Load() error {
	ids, err := r.Records.Sandboxes()
	if err != nil {
		return err
	}
	for _, one := range readStored(r.Records, ids) {
		r.loadSandbox(one)
	}
	r.Records.Recall()
	for _, c := range r.rebooted {
		r.containers.Exits.RecordLost(c, "the node was rebooted while the container ran")
	}
	return nil
}

func (r *Recovery) loadSandbox(one *stored) {
	id, read := one.id, one.sandbox
	if errors.Is(read.Err, fs.ErrNotExist) && r.onlyRemains(id) && r.alive(id) == "" {
		// A removal has removed the record and not yet the directory, or a creation has made the directory and not yet
		// the record. Reconcile finds what else has the ID.
		if err := tree.Remove(context.Background(), r.Places.Sandbox(id)); err != nil {
			r.Log.Error("remains of a pod not removed", "pod_id", id, "error", err)
		}
		return
	}
	rec := read.Record
	switch {
	case read.Err != nil:
		r.note("sandbox", Unreadable)
		rec = r.quarantine(id, read.Err)
		read.SameBoot = true
	case read.FromIntent && read.SameBoot && r.alive(id) != "":
		// The pod was made: something is alive, and that is made after the intent and the first record.
		rec.State, rec.Lost = pod.Stopped, true
		rec.Reason = "its record could not be read; its first version is used"
	}
	if !read.SameBoot {
		rec.Pins = nil // the namespaces ended with that boot
	}
	if !read.SameBoot && rec.State == pod.Ready {
		rec.State, rec.Reason = pod.Stopped, "the node was rebooted"
	}
	box := pod.NewSandbox(rec)
	r.Book.AddSandbox(box)
	if one.err != nil {
		r.Log.Error("containers of a pod not listed", "pod_id", id, "error", one.err)
	}
	for i, name := range one.names {
		r.loadContainer(box, name, one.containers[i])
	}
}

// onlyRemains reports whether a pod's directory without a record is what an interrupted creation or removal leaves. In
// that there is no record of a container.
func (r *Recovery) onlyRemains(id string) bool {
	names, err := r.Records.Containers(id)
	return err == nil && len(names) == 0
}

// quarantine moves a record that cannot be read to the quarantine directory, and writes another in its place. That one is
// of a sandbox that is not ready, with the reason. To remove it removes all that has its ID.
func (r *Recovery) quarantine(id string, cause error) *pod.SandboxRecord {
	where, err := r.Records.QuarantineSandbox(id)
	if err != nil {
		r.Log.Error("unreadable record not moved aside", "pod_id", id, "error", err)
	}
	reason := fmt.Sprintf("its record could not be read (%v); it was moved to %s", cause, where)
	r.Log.Error("sandbox record unreadable", "pod_id", id, "reason", reason)
	rec := &pod.SandboxRecord{
		ID: id, State: pod.Stopped, Created: time.Now(), Handler: r.Handlers.Default(), Reason: reason, Lost: true,
		Config: ocispec.ParsePod(&runtimeapi.PodSandboxConfig{
			Metadata: &runtimeapi.PodSandboxMetadata{Name: "unreadable-" + id, Namespace: "pinfold", Uid: id},
		}),
	}
	// Nobody knows any more which plugins attached the pod. So those of today are asked for a DEL.
	if plan, err := r.Network.Plan(network.Request{SandboxID: id, NetNS: r.Places.NetNSPin(id)}); err == nil {
		plan.Owed = true
		rec.Network = &plan
	}
	if err := r.Records.PutSandbox(rec); err != nil {
		r.Log.Error("substitute record not written", "pod_id", id, "error", err)
	}
	return rec
}

func (r *Recovery) loadContainer(box *pod.Sandbox, id string, read pod.Read[*pod.ContainerRecord]) {
	rec := read.Record
	if read.Err != nil {
		r.note("container", Unreadable)
		where, _ := r.Records.QuarantineContainer(box.ID, id)
		r.Log.Error("container record unreadable, the container is removed", "container_id", id, "path", where, "error", read.Err)
		rec = &pod.ContainerRecord{
			ID: id, Sandbox: box.ID, State: pod.Removing, Times: pod.Times{Created: time.Now()},
			Config: pod.ContainerConfig{ContainerConfig: &runtimeapi.ContainerConfig{Metadata: &runtimeapi.ContainerMetadata{Name: "unreadable-" + id}}},
		}
	}
	c := pod.NewContainer(rec)
	r.Book.AddContainer(c)
	if !read.SameBoot && (rec.State == pod.Created || rec.State == pod.Running) {
		r.rebooted = append(r.rebooted, c)
	}
}

// Reconcile compares the book with pinder and the kernel, holds the images in use, and starts what has to be finished.
// Pinder is connected.
func (r *Recovery) Reconcile(ctx context.Context) {
	known, err := r.Pinder.Containers(ctx)
	if err != nil {
		r.Log.Error("pinder's containers are not known", "error", err)
	} else {
		r.setKnown(known)
	}
	alive := map[string]wire.Container{}
	for _, c := range known {
		alive[c.ID] = c
	}
	for _, c := range r.Book.Containers() {
		fault.Logged(r.Log, func() { r.reconcileContainer(ctx, c, alive) }, "container_id", c.ID)
	}
	boxes := r.Book.Sandboxes()
	r.sandboxes.LookAhead(boxes)
	for _, box := range boxes {
		fault.Logged(r.Log, func() { r.reconcileSandbox(box) }, "pod_id", box.ID)
	}
	unknown := r.removeRemains()
	for id, what := range unknown {
		r.note("sandbox", Unrecorded)
		r.Log.Warn("something is alive without a record; it is left alone, see pinfold check", "id", id, "found", what)
	}
	if len(unknown) > 0 {
		r.Log.Warn("unused image data is not removed: what is alive without a record may use it")
		return
	}
	if err := r.Images.RemoveUnused(ctx); err != nil {
		r.Log.Error("unused image data not removed", "error", err)
	}
}

func (r *Recovery) reconcileContainer(ctx context.Context, c *pod.Container, alive map[string]wire.Container) {
	rec := c.Record()
	defer func() { r.noteContainer(rec.State, c.Record().State) }()
	if err := r.containers.HoldImages(rec); err != nil {
		r.Log.Warn("an image of a container is gone", "container_id", c.ID, "error", err)
	}
	if rec.State == pod.Created || rec.State == pod.Running {
		state, ok := alive[c.ID]
		switch {
		case !ok && rec.State == pod.Created:
			// Pinder had ended. The container's program has not run, so nothing of it is lost.
			c.Stale.Store(true)
		case !ok:
			r.judge(c, state, r.adopt(ctx, c))
		default:
			r.judge(c, state, true)
		}
	}
	switch c.Record().State {
	case pod.Creating, pod.Removing, pod.Exited:
		r.debts.Add(c)
	}
}

// judge records what pinder says of a container that a record has as created or running.
func (r *Recovery) judge(c *pod.Container, state wire.Container, known bool) {
	switch {
	case !known:
		r.containers.Exits.RecordLost(c, "the container ended while neither pinfoldd nor pinder ran")
	case state.Exit != nil:
		r.containers.Exits.Record(c, *state.Exit)
	case state.Running() && c.Record().State == pod.Created:
		// The daemon ended after the start, and before it was recorded.
		err := r.Records.ChangeContainer(c, func(rec *pod.ContainerRecord) { rec.State, rec.Times.Started = pod.Running, time.Now() })
		if err != nil {
			r.Log.Error("running container not recorded", "container_id", c.ID, "error", err)
		}
	}
}

// adopt tells pinder of a process that still runs. Pinder had ended, so it does not know it.
func (r *Recovery) adopt(ctx context.Context, c *pod.Container) bool {
	rec := c.Record()
	if !rec.Process.Alive() {
		return false
	}
	box, err := r.Book.Sandbox(c.Sandbox)
	if err != nil {
		return false
	}
	_, err = r.Pinder.Adopt(ctx, r.containers.AdoptRequest(box, c))
	if err != nil {
		r.Log.Error("running container not adopted", "container_id", c.ID, "error", err)
	}
	return err == nil
}

func (r *Recovery) reconcileSandbox(box *pod.Sandbox) {
	rec := box.Record()
	defer func() { r.noteSandbox(rec.State, box.Record().State) }()
	if rec.State == pod.Ready {
		if reason := r.sandboxes.Lacks(box); reason != "" {
			err := r.Records.ChangeSandbox(box, func(s *pod.SandboxRecord) { s.State, s.Reason = pod.Stopped, reason })
			if err != nil {
				r.Log.Error("sandbox state not recorded", "pod_id", box.ID, "reason", reason, "error", err)
			}
		}
	}
	switch {
	case box.Record().State == pod.Ready:
	case r.lostAlive(box):
		r.Log.Warn("the record of a pod is lost, and something of the pod is alive; it is left alone until it is stopped", "pod_id", box.ID)
	default:
		r.debts.Add(box)
	}
}

// lostAlive reports whether the record of a pod is lost and something of the pod is alive. The lost record is no reason to
// kill it.
func (r *Recovery) lostAlive(box *pod.Sandbox) bool {
	if rec := box.Record(); !rec.Lost || rec.State != pod.Stopped {
		return false
	}
	return r.alive(box.ID) != "" || slices.ContainsFunc(r.Book.ContainersOf(box.ID), func(c *pod.Container) bool {
		state := c.Record().State
		return state == pod.Created || state == pod.Running
	})
}

// Pay does what one object owes. Debts calls it.
func (r *Recovery) Pay(ctx context.Context, object any) error {
	switch o := object.(type) {
	case *pod.Sandbox:
		return r.sandboxes.Pay(ctx, o)
	case *pod.Container:
		return r.containers.Pay(ctx, o)
	default:
		panic(fmt.Sprintf("pod: a debt of %T", object))
	}
}
