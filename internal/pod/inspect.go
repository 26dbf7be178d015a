package pod

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/pin"
)

// NamespacePins are the paths of a sandbox's pinned namespaces, by kind.
func (n *Node) NamespacePins(rec *SandboxRecord) map[string]string {
	pins := map[string]string{}
	for _, kind := range kindsInOrder {
		if rec.kinds()&kind != 0 {
			pins[kind.String()] = n.Paths.pin(rec.ID, kind)
		}
	}
	if rec.Init.PID != 0 {
		pins[pin.PID.String()] = n.Paths.pin(rec.ID, pin.PID)
	}
	return pins
}

// Bundle is a container's OCI spec, nil when it has none any more. It may hold secrets of the pod's
// environment, as CRI's verbose status does.
func (n *Node) Bundle(id string) json.RawMessage {
	data, err := os.ReadFile(filepath.Join(n.Paths.bundle(id), "config.json"))
	if err != nil {
		return nil
	}
	return data
}

// Ready says why this node can run no container at all now; nil if it can.
func (n *Node) Ready(ctx context.Context) error {
	ask, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, _, err := n.Pinder.Processes(ask); err != nil {
		return err
	}
	h, err := n.Handlers.Find(ctx, "")
	if err != nil {
		return err
	}
	if errdefs.IsFailedPrecondition(h.Problem) {
		return h.Problem
	}
	return nil // one that has no word for its features may do all that is asked of it
}
