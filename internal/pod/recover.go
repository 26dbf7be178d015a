package pod

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/network"
	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pinder/client"
	"github.com/pinfold-run/pinfold/internal/tree"
)

// Recovery brings the book in line with records, supervisor and kernel when the daemon starts. It
// works object by object: whatever is wrong with one becomes that one's reason and stops nothing
// else. What is left to undo or to pay is put on the list of debts and done while the daemon serves.
type Recovery struct {
	Node       *Node
	Book       *Book
	Sandboxes  *Sandboxes
	Containers *Containers
	Debts      *Debts

	// rebooted are the containers that ran when the node went down; set by Load.
	rebooted []*Container
	// known are the containers that pinder has; set by Reconcile, Repair and Check.
	known atomic.Pointer[map[string]client.ContainerState]
}

// Load reads all records into the book. It needs nothing but the records, so that exits which the
// supervisor reports at once find their containers.
func (r *Recovery) Load() error {
	ids, err := r.Node.Records.Keys(podsDir)
	if err != nil {
		return err
	}
	for _, id := range ids {
		r.loadSandbox(id)
	}
	r.Node.Events.recall()
	for _, c := range r.rebooted {
		r.Containers.finishLost(c, "the node was rebooted while the container ran")
	}
	return nil
}

func (r *Recovery) loadSandbox(id string) {
	rec := &SandboxRecord{}
	entry, err := r.Node.Records.Get(sandboxKey(id), rec)
	if errors.Is(err, fs.ErrNotExist) && r.onlyRemains(id) && r.alive(id) == "" {
		// Its record was deleted, the directory not yet; or made, and the record not yet. Names of it
		// elsewhere, if any, are found by Reconcile.
		if err := tree.Remove(context.Background(), r.Node.Paths.sandbox(id)); err != nil {
			r.Node.Log.Error("remains of a pod not removed", "sandbox", id, "error", err)
		}
		return
	}
	if err == nil && rec.ID != id {
		err = fmt.Errorf("it names the sandbox %q", rec.ID)
	}
	switch {
	case err != nil:
		rec = r.quarantine(id, err)
		entry.SameBoot = true
	case entry.FromIntent && entry.SameBoot && r.alive(id) != "":
		// It had been made: what is alive comes after the intent and the first record.
		rec.State, rec.Lost = Stopped, true
		rec.Reason = "its record could not be read; what was recorded before it was made stands in"
	}
	if !entry.SameBoot {
		rec.Pins = nil // they went with that boot
	}
	if !entry.SameBoot && rec.State == Ready {
		rec.State, rec.Reason = Stopped, "the node was rebooted"
	}
	box := newSandbox(rec)
	r.Book.addSandbox(box)
	names, err := r.containerNames(id)
	if err != nil {
		r.Node.Log.Error("containers of a pod not listed", "sandbox", id, "error", err)
	}
	for _, name := range names {
		r.loadContainer(box, name)
	}
}

// containerNames lists the container records of a sandbox, without the exit files beside them.
func (r *Recovery) containerNames(sandbox string) ([]string, error) {
	names, err := r.Node.Records.Keys(filepath.Join(podsDir, sandbox, containersDir))
	return slices.DeleteFunc(names, func(n string) bool { return filepath.Ext(n) != "" }), err
}

// onlyRemains reports whether a pod directory without a record is what an interrupted creation or
// removal leaves: one in which no container was recorded.
func (r *Recovery) onlyRemains(id string) bool {
	names, err := r.containerNames(id)
	return err == nil && len(names) == 0
}

// quarantine puts a record that cannot be read aside and makes one that says so in its place: a
// sandbox that is not ready, with the reason, whose removal cleans up what its ID implies.
func (r *Recovery) quarantine(id string, cause error) *SandboxRecord {
	where, err := r.Node.Records.Quarantine(sandboxKey(id))
	if err != nil {
		r.Node.Log.Error("unreadable record not moved aside", "sandbox", id, "error", err)
	}
	reason := fmt.Sprintf("its record could not be read (%v); it was moved to %s", cause, where)
	r.Node.Log.Error("sandbox record unreadable", "sandbox", id, "reason", reason)
	rec := &SandboxRecord{
		ID: id, State: Stopped, Created: time.Now(), Handler: r.Node.Handlers.Default(), Reason: reason, Lost: true,
		Config: ocispec.ParsePod(&runtimeapi.PodSandboxConfig{
			Metadata: &runtimeapi.PodSandboxMetadata{Name: "unreadable-" + id, Namespace: "pinfold", Uid: id},
		}),
	}
	// What the plugins are owed is not known any more; asking today's for a DEL is the best there is.
	if plan, err := r.Node.Network.Plan(network.Request{SandboxID: id, NetNS: r.Node.Paths.netNS(id)}); err == nil {
		plan.Owed = true
		rec.Network = &plan
	}
	if err := r.Node.Records.Put(sandboxKey(id), rec); err != nil {
		r.Node.Log.Error("substitute record not written", "sandbox", id, "error", err)
	}
	return rec
}

func (r *Recovery) loadContainer(box *Sandbox, id string) {
	rec := &ContainerRecord{}
	entry, err := r.Node.Records.Get(containerKey(box.ID, id), rec)
	if err == nil && rec.ID != id {
		err = fmt.Errorf("it names the container %q", rec.ID)
	}
	if err != nil {
		where, _ := r.Node.Records.Quarantine(containerKey(box.ID, id))
		r.Node.Log.Error("container record unreadable, the container is removed", "container", id, "moved to", where, "error", err)
		rec = &ContainerRecord{
			ID: id, Sandbox: box.ID, State: Removing, Times: Times{Created: time.Now()},
			Config: ContainerConfig{&runtimeapi.ContainerConfig{Metadata: &runtimeapi.ContainerMetadata{Name: "unreadable-" + id}}},
		}
	}
	c := newContainer(rec)
	r.Book.addContainer(c)
	if !entry.SameBoot && (rec.State == Created || rec.State == Running) {
		r.rebooted = append(r.rebooted, c)
	}
}

// Reconcile compares the book with the supervisor and the kernel, claims the images in use, and
// starts what has to be finished. The supervisor is connected.
func (r *Recovery) Reconcile(ctx context.Context) {
	known, err := r.Node.Pinder.Containers(ctx)
	if err != nil {
		r.Node.Log.Error("pinder's containers are not known", "error", err)
	} else {
		r.setKnown(known)
	}
	alive := map[string]client.ContainerState{}
	for _, c := range known {
		alive[c.ID] = c
	}
	for _, c := range r.Book.Containers() {
		r.reconcileContainer(ctx, c, alive)
	}
	for _, box := range r.Book.Sandboxes() {
		r.reconcileSandbox(box)
	}
	unknown := r.eraseRemains()
	for id, what := range unknown {
		r.Node.Log.Warn("something is alive without a record; it is left alone, see pinfold check", "id", id, "found", what)
	}
	if len(unknown) > 0 {
		r.Node.Log.Warn("unused image data is not swept: what is alive without a record may use it")
		return
	}
	if err := r.Node.Images.Sweep(ctx); err != nil {
		r.Node.Log.Error("unused image data not swept", "error", err)
	}
}

func (r *Recovery) reconcileContainer(ctx context.Context, c *Container, alive map[string]client.ContainerState) {
	rec := c.Record()
	if err := r.Node.holdImages(rec); err != nil {
		r.Node.Log.Warn("an image of a container is gone", "container", c.ID, "error", err)
	}
	if rec.State == Created || rec.State == Running {
		state, ok := alive[c.ID]
		switch {
		case !ok && rec.State == Created:
			// Both of our processes had been ended. Its program has not run, so nothing of it is lost.
			c.stale.Store(true)
		case !ok:
			r.judge(c, state, r.adopt(ctx, c))
		default:
			r.judge(c, state, true)
		}
	}
	switch c.Record().State {
	case Creating, Removing, Exited:
		r.Debts.add(c)
	}
}

// judge believes the supervisor about a container that a record has as created or running.
func (r *Recovery) judge(c *Container, state client.ContainerState, known bool) {
	switch {
	case !known:
		r.Containers.finishLost(c, "the container ended while neither pinfoldd nor pinder ran")
	case state.Exit != nil:
		r.Containers.finish(c, state.Exit.At, exitStatus(*state.Exit))
	case state.Running() && c.Record().State == Created:
		// Start had been done when the daemon ended, but not recorded.
		err := r.Node.changeContainer(c, func(rec *ContainerRecord) { rec.State, rec.Times.Started = Running, time.Now() })
		if err != nil {
			r.Node.Log.Error("running container not recorded", "container", c.ID, "error", err)
		}
	}
}

// adopt hands a process that still runs to a pinder that does not know it: both of our processes had
// been ended.
func (r *Recovery) adopt(ctx context.Context, c *Container) bool {
	rec := c.Record()
	if !rec.Process.alive() {
		return false
	}
	box, err := r.Book.Sandbox(c.Sandbox)
	if err != nil {
		return false
	}
	_, err = r.Node.Pinder.Adopt(ctx, client.AdoptRequest{
		CreateRequest: r.Containers.runtimeRequest(box, c), PID: rec.Process.PID, StartTime: rec.Process.StartTime,
	})
	if err != nil {
		r.Node.Log.Error("running container not adopted", "container", c.ID, "error", err)
	}
	return err == nil
}

func (r *Recovery) reconcileSandbox(box *Sandbox) {
	rec := box.Record()
	if rec.State == Ready {
		if reason := r.Node.broken(rec); reason != "" {
			r.Node.Log.Warn("sandbox is not ready any more", "sandbox", box.ID, "reason", reason)
			err := r.Node.changeSandbox(box, func(s *SandboxRecord) { s.State, s.Reason = Stopped, reason })
			if err != nil {
				r.Node.Log.Error("sandbox state not recorded", "sandbox", box.ID, "error", err)
			}
		}
	}
	switch {
	case box.Record().State == Ready:
	case r.runsOn(box):
		r.Node.Log.Warn("the record of a pod is lost, and the pod is not; it is left alone until it is stopped", "sandbox", box.ID)
	default:
		r.Debts.add(box)
	}
}

// runsOn reports whether something of a pod is alive of which the record is lost: that is no permission to end it.
func (r *Recovery) runsOn(box *Sandbox) bool {
	if rec := box.Record(); !rec.Lost || rec.State != Stopped {
		return false
	}
	return r.alive(box.ID) != "" || slices.ContainsFunc(r.Book.ContainersOf(box.ID), func(c *Container) bool {
		state := c.Record().State
		return state == Created || state == Running
	})
}

// Pay settles what one object owes; it is what Debts calls.
func (r *Recovery) Pay(ctx context.Context, object any) error {
	switch o := object.(type) {
	case *Sandbox:
		return r.Sandboxes.pay(ctx, o)
	case *Container:
		return r.Containers.pay(ctx, o)
	default:
		panic(fmt.Sprintf("pod: a debt of %T", object))
	}
}

func (s *Sandboxes) pay(ctx context.Context, box *Sandbox) error {
	box.order.Lock()
	defer box.order.Unlock()
	if box.erased {
		return nil
	}
	switch box.Record().State {
	case Creating, Removing:
		return s.eraseAll(ctx, box)
	case Stopped:
		if err := s.node.Engine.Run(ctx, s.stopOperation(box)); err != nil {
			return err
		}
		if rec := box.Record(); rec.owesNetwork() {
			return fmt.Errorf("network: %s", rec.Network.LastError)
		}
	}
	return nil
}

func (s *Containers) pay(ctx context.Context, c *Container) error {
	c.order.Lock()
	defer c.order.Unlock()
	if c.erased {
		return nil
	}
	switch c.Record().State {
	case Creating, Removing:
		return s.eraseAll(ctx, c)
	case Exited:
		return s.settle(ctx, c)
	}
	return nil
}
