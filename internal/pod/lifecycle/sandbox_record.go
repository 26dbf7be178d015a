package lifecycle

import (
	"context"
	"log/slog"
	"os"

	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/tree"
	"github.com/pinfold-run/pinfold/pin"
)

// sandboxRecord is the step "record" of a sandbox: the record is written first and removed last.
type sandboxRecord struct {
	places  *pod.Places
	book    *pod.Book
	records *pod.Records
	pins    namespacePins
	cgroups Cgroups
	log     *slog.Logger
}

// Do writes the intent, and does not wait until it is on the disk: the namespaces are made meanwhile. Step network
// waits.
func (s sandboxRecord) Do(_ context.Context, box *pod.Sandbox) error {
	if err := os.MkdirAll(s.places.Sandbox(box.ID), 0o700); err != nil {
		return err
	}
	durable, err := s.records.Intend(box)
	if err != nil {
		return err
	}
	synced := make(chan error, 1)
	go func() { synced <- durable() }()
	box.Durable = func() error { return <-synced }
	s.book.AddSandbox(box)
	return nil
}

// Undo removes what has no step of its own, the record and the sandbox's directory. It reads the ID, the parent of the
// cgroups and the path of the network namespace.
func (s sandboxRecord) Undo(ctx context.Context, box *pod.Sandbox) error {
	if box.Durable != nil {
		_ = box.Durable()
		box.Durable = nil
	}
	s.removeCgroup(box.Record())
	// If the operation failed before step network, that step is not undone. The plan in the record still says that a DEL
	// is owed, so step namespaces has kept the pin. No plugin has seen it.
	if err := s.pins.Unpin(s.places.PinPath(box.Record(), pin.Net)); err != nil {
		return err
	}
	if err := s.records.RemoveSandbox(box.ID); err != nil {
		return err
	}
	if err := tree.Remove(ctx, s.places.Sandbox(box.ID)); err != nil {
		return err
	}
	s.book.RemoveSandbox(box.ID)
	s.records.SandboxRemoved(box)
	return nil
}

// removeCgroup removes the pod's group if it is ours.
func (s sandboxRecord) removeCgroup(rec *pod.SandboxRecord) {
	group := s.places.Cgroup(rec)
	if !group.Ours {
		return
	}
	if err := s.cgroups.Remove(group.Path()); err != nil {
		s.log.Warn("cgroup not removed", "pod_id", rec.ID, "error", err)
	}
}
