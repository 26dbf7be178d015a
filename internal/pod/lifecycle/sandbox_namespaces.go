package lifecycle

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/pin"
)

// sandboxNamespaces is the step "namespaces": it makes the pod's namespaces and pins them. That of PIDs is made by step
// init.
type sandboxNamespaces struct {
	places *pod.Places
	pins   namespacePins
}

type namespacePins interface {
	// Make makes the namespaces that a pod has of its own (see pod.SandboxRecord.Kinds), pins each at path, and returns
	// their inode numbers by kind.
	Make(r *pod.SandboxRecord, path func(pin.Kind) string) (map[string]uint64, error)
	// Unpin removes the pin at path. A missing one is no error.
	Unpin(path string) error
}

// Do makes what the record asks for.
func (s sandboxNamespaces) Do(_ context.Context, box *pod.Sandbox) error {
	rec := box.Record()
	if rec.Kinds() == 0 {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(s.places.Pins(), box.ID), 0o700); err != nil {
		return err
	}
	var err error
	box.Pinned, err = s.pins.Make(rec, func(kind pin.Kind) string { return s.places.PinPath(rec, kind) })
	return err
}

// Undo removes the pins, that of the PID namespace among them. It reads the ID, the path of the network namespace, and
// whether a DEL is owed. While one is, the network's pin stays: without it a plugin cannot find out what to take back
// (the bridge plugin then leaves its masquerading rules).
func (s sandboxNamespaces) Undo(_ context.Context, box *pod.Sandbox) error {
	owed := box.Record().OwesNetwork()
	for _, kind := range append([]pin.Kind{pin.PID}, pod.KindsInOrder...) {
		if kind == pin.Net && owed {
			continue
		}
		if err := s.pins.Unpin(s.places.PinPath(box.Record(), kind)); err != nil {
			return err
		}
	}
	err := os.Remove(filepath.Join(s.places.Pins(), box.ID))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
