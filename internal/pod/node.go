package pod

import (
	"crypto/rand"
	"encoding/hex"
	"log/slog"

	"github.com/pinfold-run/pinfold/internal/handler"
	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/record"
	"github.com/pinfold-run/pinfold/internal/steps"
)

// Node is what the life cycles stand on: one of each part, made by the daemon at start and closed by
// it at the end. Its fields do not change after start.
type Node struct {
	Paths   Paths
	Log     *slog.Logger
	Records *record.Store
	Engine  *steps.Engine
	Parts
	Handlers *handler.Set
	Cgroups  *cgroup.Hierarchies
	Events   *Events
	// Plugins see and adjust pods and containers; nil if there are none.
	Plugins Plugins
	// Host is what probing found; see package host.
	Host ocispec.Host
	// UserNamespaces is why pods cannot have user namespaces here; nil if they can.
	UserNamespaces error
}

// NewID returns the name of a new sandbox or container: 128 random bits in hexadecimal.
func NewID() string {
	var id [16]byte
	// crypto/rand.Read never fails (Go 1.24 and later).
	_, _ = rand.Read(id[:])
	return hex.EncodeToString(id[:])
}
