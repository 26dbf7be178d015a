package recovery

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/network"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/pod/lifecycle"
	"github.com/pinfold-run/pinfold/internal/tree"
	"github.com/pinfold-run/pinfold/pin"
)

// This file is about what the state directory or pinder has and no record tells of. An operation writes its record
// first and removes it last, so no crash leaves anything alive without one: the records were lost or exchanged, by
// a restored backup for instance. That they are not here is no permission to end what runs. Only remains, in which
// nothing is alive, are removed without being asked.

// names are the IDs that this instance's pins, bundles and mounts carry.
func (r *Recovery) names() map[string]bool {
	ids := map[string]bool{}
	for _, dir := range []string{r.Places.Pins(), r.Places.Bundles()} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			r.Log.Error("directory not searched for leftovers", "directory", dir, "error", err)
		}
		for _, e := range entries {
			ids[e.Name()] = true
		}
	}
	mounted, err := r.Mounts.List()
	if err != nil {
		r.Log.Error("mounts not searched for leftovers", "error", err)
	}
	for _, id := range mounted {
		ids[id] = true
	}
	return ids
}

// unrecorded are the IDs of names and of pinder's containers that have no record and no operation in flight.
func (r *Recovery) unrecorded() map[string]bool {
	ids := r.names()
	if known := r.known.Load(); known != nil {
		for id := range *known {
			ids[id] = true
		}
	}
	for id := range ids {
		if r.recorded(id) || r.busy(id) {
			delete(ids, id)
		}
	}
	return ids
}

func (r *Recovery) setKnown(list []wire.Container) {
	known := map[string]wire.Container{}
	for _, c := range list {
		known[c.ID] = c
	}
	r.known.Store(&known)
}

// alive says what of an ID is more than a file, "" if there are only remains.
func (r *Recovery) alive(id string) string {
	if known := r.known.Load(); known != nil {
		if c, ok := (*known)[id]; ok && c.Exit == nil {
			return fmt.Sprintf("a container (pid %d, %s)", c.PID, c.Phase)
		}
	}
	pins, _ := filepath.Glob(filepath.Join(r.Places.Pins(), id, "*"))
	for _, path := range append(pins, r.Places.NetNSPin(id)) {
		if _, err := r.Pins.Identify(path); !lifecycle.NoPin(err) {
			return "namespaces, one pinned at " + path
		}
	}
	switch mounted, err := r.Mounts.Mounted(id); {
	case err != nil:
		return fmt.Sprintf("what may have mounts (%v)", err)
	case mounted:
		return "mounts in " + filepath.Join(r.Mounts.Dir(), id)
	}
	return ""
}

// eraseRemains removes what no record owns and in which nothing is alive. It returns what is alive, by ID, and does
// nothing while it is not known what pinder has.
func (r *Recovery) eraseRemains() map[string]string {
	alive := map[string]string{}
	if r.known.Load() == nil {
		return alive
	}
	for id := range r.unrecorded() {
		if what := r.alive(id); what != "" {
			alive[id] = what
			continue
		}
		if err := r.erase(context.Background(), id); err != nil {
			r.Log.Error("leftovers not removed", "id", id, "error", err)
		}
	}
	return alive
}

// Unknown reports whether anything is alive that has no record.
func (r *Recovery) Unknown() bool {
	for id := range r.unrecorded() {
		if r.alive(id) != "" {
			return true
		}
	}
	return false
}

// Discard ends and removes what is alive under an ID without a record: the operator has named it. Errors:
// ErrFailedPrecondition if it has a record, ErrNotFound if there is nothing.
func (r *Recovery) Discard(ctx context.Context, id string) error {
	known, err := r.Pinder.Containers(ctx)
	if err != nil {
		return err
	}
	r.setKnown(known)
	if r.recorded(id) || r.busy(id) {
		return fmt.Errorf("%s has a record; remove it as a pod or container: %w", id, errdefs.ErrFailedPrecondition)
	}
	if !r.unrecorded()[id] {
		return fmt.Errorf("there is nothing of %q without a record (a whole ID is needed): %w", id, errdefs.ErrNotFound)
	}
	r.Log.Warn("ending and removing what has no record, as the operator wants it", "id", id, "found", r.alive(id))
	return r.erase(ctx, id)
}

// erase removes all that an ID implies, be it a sandbox's or a container's.
func (r *Recovery) erase(ctx context.Context, id string) error {
	for _, step := range []func(context.Context, string) error{
		r.deleteContainer,
		func(_ context.Context, id string) error { return r.Mounts.Unmount(id) },
		func(ctx context.Context, id string) error { return tree.Remove(ctx, r.Places.Bundle(id)) },
		r.detach,
		func(ctx context.Context, id string) error {
			return r.Sandboxes.RemoveUnrecorded(ctx, id)
		},
		func(ctx context.Context, id string) error { return tree.Remove(ctx, r.Places.Sandbox(id)) },
	} {
		if err := step(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// deleteContainer makes pinder and runtime forget a container. Which runtime made it pinder knows, or the
// directory in which that runtime has its state says it.
func (r *Recovery) deleteContainer(ctx context.Context, id string) error {
	_, err := os.Stat(r.Places.Bundle(id))
	if _, ok := (*r.known.Load())[id]; errors.Is(err, os.ErrNotExist) && !ok {
		return nil
	}
	handler := r.Handlers.Default()
	if states, _ := filepath.Glob(r.Places.RuntimeRoot("*") + "/" + id); len(states) > 0 {
		handler = filepath.Base(filepath.Dir(states[0]))
	}
	return r.Pinder.Delete(ctx, r.Places.Deletion(&pod.SandboxRecord{ID: id, Handler: handler}, id))
}

// detach asks today's plugins for what they may be owed; there is no record of it.
func (r *Recovery) detach(ctx context.Context, id string) error {
	netns := r.Places.NetNSPin(id)
	ns, err := pin.Open(netns)
	if err != nil {
		return nil // not a pod, or one without a network of its own
	}
	ns.Close()
	plan, err := r.Network.Plan(network.Request{SandboxID: id, NetNS: netns})
	if err == nil {
		plan.Owed = true
		err = r.Network.Detach(ctx, &plan, netns)
	}
	if err != nil {
		r.Log.Warn("the network plugins may keep something of a pod without a record", "sandbox", id, "error", err)
	}
	return nil
}
