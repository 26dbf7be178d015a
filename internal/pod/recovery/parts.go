package recovery

import (
	"context"
	"encoding/json"

	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/network"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// Parts are what recovery looks into.
type Parts struct {
	Pinder   Pinder
	Mounts   Mounts
	Network  Network
	Images   Images
	Handlers Handlers
	Pins     Pins
}

// Pinder holds what runs; see package client.
type Pinder interface {
	// Containers lists the containers.
	Containers(ctx context.Context) ([]wire.Container, error)
	// Adopt takes over a process that pinder does not know.
	Adopt(ctx context.Context, r wire.Adopt) (wire.Created, error)
	// Delete kills and removes a container. An unknown one is no error.
	Delete(ctx context.Context, r wire.Delete) error
}

// Mounts has the mounts of pods and containers; see package rootfs.
type Mounts interface {
	// Dir is the directory of the mounts.
	Dir() string
	// List are the IDs that have a directory there.
	List() ([]string, error)
	// Mounted reports whether anything of an ID is mounted.
	Mounted(id string) (bool, error)
	// Unmount removes all mounts of an ID.
	Unmount(id string) error
}

// Network attaches pods; see package network.
type Network interface {
	// Plan says what an attachment will be and owe.
	Plan(r network.Request) (network.Attachment, error)
	// Detach calls DEL of the plugins, with the path of the network namespace, "" if there is none.
	Detach(ctx context.Context, a *network.Attachment, netns string) error
	// Current is the configuration of today.
	Current() (name string, list json.RawMessage, ok bool)
}

// Images has the images of the node; see package image.
type Images interface {
	// RemoveUnused removes data that no image and no container uses.
	RemoveUnused(ctx context.Context) error
	// Quarantined are the records of images that could not be read.
	Quarantined() []image.Quarantined
}

// Handlers finds OCI runtimes.
type Handlers interface{ Default() string }

// Pins looks at pins; see lifecycle.Pins.
type Pins interface {
	Identify(path string) (inode uint64, err error)
}
