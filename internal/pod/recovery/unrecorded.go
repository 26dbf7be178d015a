package recovery

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/network"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/pod/lifecycle"
	"github.com/pinfold-run/pinfold/internal/tree"
)

// unrecorded finds what the state directory or pinder has and no record tells of. An operation writes its record first and
// removes it last, so no crash leaves anything alive without one: the records were lost or replaced, by a restored backup
// for instance. That they are missing is no reason to kill what runs. Only remains, in which nothing is alive, are removed
// without being asked.
type unrecorded struct {
	lifecycle.Base
	Parts
	sandboxes *lifecycle.Sandboxes
	// known are the containers that pinder has, nil before it was asked.
	known atomic.Pointer[map[string]wire.Container]
	// removed counts the leftovers that were removed at the start.
	removed int
}

// names are the IDs of this instance's pins, bundles and mounts.
func (u *unrecorded) names() map[string]bool {
	ids := map[string]bool{}
	for _, dir := range []string{u.Places.Pins(), u.Places.Bundles()} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			u.Log.Error("directory not searched for leftovers", "path", dir, "error", err)
		}
		for _, e := range entries {
			ids[e.Name()] = true
		}
	}
	mounted, err := u.Mounts.List()
	if err != nil {
		u.Log.Error("mounts not searched for leftovers", "error", err)
	}
	for _, id := range mounted {
		ids[id] = true
	}
	return ids
}

// ids are the IDs of names and of pinder's containers that have no record and no operation in flight.
func (u *unrecorded) ids() map[string]bool {
	ids := u.names()
	if known := u.known.Load(); known != nil {
		for id := range *known {
			ids[id] = true
		}
	}
	for id := range ids {
		if u.recorded(id) || u.busy(id) {
			delete(ids, id)
		}
	}
	return ids
}

func (u *unrecorded) setKnown(list []wire.Container) {
	known := map[string]wire.Container{}
	for _, c := range list {
		known[c.ID] = c
	}
	u.known.Store(&known)
}

// alive says what is alive under an ID, "" if there are only remains.
func (u *unrecorded) alive(id string) string {
	if known := u.known.Load(); known != nil {
		if c, ok := (*known)[id]; ok && c.Exit == nil {
			return fmt.Sprintf("a container (pid %d, %s)", c.PID, c.Phase)
		}
	}
	pins, _ := filepath.Glob(filepath.Join(u.Places.Pins(), id, "*"))
	for _, path := range append(pins, u.Places.NetNSPin(id)) {
		if _, err := u.Pins.Identify(path); !lifecycle.NoPin(err) {
			return "namespaces, one pinned at " + path
		}
	}
	switch mounted, err := u.Mounts.Mounted(id); {
	case err != nil:
		return fmt.Sprintf("what may have mounts (%v)", err)
	case mounted:
		return "mounts in " + filepath.Join(u.Mounts.Dir(), id)
	}
	return ""
}

// removeRemains removes what has no record, if nothing in it is alive. It returns what is alive, by ID. It does nothing as
// long as pinder's containers are not known.
func (u *unrecorded) removeRemains() map[string]string {
	alive := map[string]string{}
	if u.known.Load() == nil {
		return alive
	}
	for id := range u.ids() {
		if what := u.alive(id); what != "" {
			alive[id] = what
			continue
		}
		if err := u.remove(context.Background(), id); err != nil {
			u.Log.Error("leftovers not removed", "id", id, "error", err)
			continue
		}
		u.removed++
	}
	return alive
}

// Unknown reports whether anything is alive that has no record.
func (u *unrecorded) Unknown() bool {
	for id := range u.ids() {
		if u.alive(id) != "" {
			return true
		}
	}
	return false
}

// RemoveAlive kills and removes what is alive under an ID without a record, because the operator has named it. Errors:
// ErrFailedPrecondition if it has a record, ErrNotFound if there is nothing.
func (u *unrecorded) RemoveAlive(ctx context.Context, id string) error {
	known, err := u.Pinder.Containers(ctx)
	if err != nil {
		return err
	}
	u.setKnown(known)
	if u.recorded(id) || u.busy(id) {
		return fmt.Errorf("%s has a record; remove it as a pod or container: %w", id, errdefs.ErrFailedPrecondition)
	}
	if !u.ids()[id] {
		return fmt.Errorf("there is nothing of %q without a record (a whole ID is needed): %w", id, errdefs.ErrNotFound)
	}
	u.Log.Warn("killing and removing what has no record, as the operator asked", "id", id, "found", u.alive(id))
	return u.remove(ctx, id)
}

// remove removes all that has the ID, of a sandbox or of a container.
func (u *unrecorded) remove(ctx context.Context, id string) error {
	for _, step := range []func(context.Context, string) error{
		u.deleteContainer,
		func(_ context.Context, id string) error { return u.Mounts.Unmount(id) },
		func(ctx context.Context, id string) error { return tree.Remove(ctx, u.Places.Bundle(id)) },
		u.detach,
		u.sandboxes.RemoveUnrecorded,
		func(ctx context.Context, id string) error { return tree.Remove(ctx, u.Places.Sandbox(id)) },
	} {
		if err := step(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// deleteContainer makes pinder and the OCI runtime forget a container. Pinder knows which runtime made it. Otherwise the
// directory with the runtime's state tells it.
func (u *unrecorded) deleteContainer(ctx context.Context, id string) error {
	_, err := os.Stat(u.Places.Bundle(id))
	if _, ok := (*u.known.Load())[id]; errors.Is(err, os.ErrNotExist) && !ok {
		return nil
	}
	handler := u.Handlers.Default()
	if states, _ := filepath.Glob(u.Places.RuntimeRoot("*") + "/" + id); len(states) > 0 {
		handler = filepath.Base(filepath.Dir(states[0]))
	}
	return u.Pinder.Delete(ctx, u.Places.Deletion(&pod.SandboxRecord{ID: id, Handler: handler}, id))
}

// detach calls DEL of today's plugins, because there is no record of those that attached it.
func (u *unrecorded) detach(ctx context.Context, id string) error {
	netns := u.Places.NetNSPin(id)
	if _, err := u.Pins.Identify(netns); err != nil {
		return nil // not a pod, or one without a network of its own
	}
	plan, err := u.Network.Plan(network.Request{SandboxID: id, NetNS: netns})
	if err == nil {
		plan.Owed = true
		err = u.Network.Detach(ctx, &plan, netns)
	}
	if err != nil {
		u.Log.Warn("the network plugins may keep something of a pod without a record", "pod_id", id, "error", err)
	}
	return nil
}

// busy reports whether an operation on the object of that ID is in flight.
func (u *unrecorded) busy(id string) bool { return len(u.Engine.Flights(id)) > 0 }

func (u *unrecorded) recorded(id string) bool {
	_, boxErr := u.Book.Sandbox(id)
	_, ctrErr := u.Book.Container(id)
	return boxErr == nil || ctrErr == nil
}
