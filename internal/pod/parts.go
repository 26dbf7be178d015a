package pod

import (
	"context"
	"encoding/json"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/network"
	"github.com/pinfold-run/pinfold/internal/pinder/client"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/rootfs"
	"github.com/pinfold-run/pinfold/pin"
)

// This file has the parts of a node that act on the kernel, the network and pinder, with what pods ask of each. There
// is one kind of each in the daemon. The scenario tests have others, which fail when they are told to.

// Parts are one of each, in the daemon for as long as it runs.
type Parts struct {
	Pins    Pins
	Network Network
	Images  Images
	Pinder  Pinder
	Mounts  Mounts
}

// Pins makes the namespaces of pods and keeps them pinned.
type Pins interface {
	// Make makes the namespaces that a pod has of its own (see Kinds), pins each at path, and returns their inode
	// numbers by kind.
	Make(r *SandboxRecord, path func(pin.Kind) string) (map[string]uint64, error)
	// MakeNet makes a network namespace with nothing in it and pins it at path.
	MakeNet(path string) error
	// PinPID pins the PID namespace of a process at path and returns its inode number. It fails if the process has ended.
	PinPID(p proc.Process, path string) (inode uint64, err error)
	// Identify returns the inode number of the namespace at path.
	Identify(path string) (inode uint64, err error)
	// Open opens the namespace that is pinned at path.
	Open(path string) (Namespace, error)
	// Unpin removes the pin at path. A missing one is no error.
	Unpin(path string) error
}

// Namespace is one open namespace.
type Namespace interface {
	// Do calls fn in the namespace.
	Do(fn func() error) error
	// WithFD calls fn with a descriptor of the namespace.
	WithFD(fn func(fd int) error) error
	// Close closes it.
	Close() error
}

// Network attaches pods to the pod network; package network has it.
type Network interface {
	// Plan says what an attachment will be and owe.
	Plan(r network.Request) (network.Attachment, error)
	// Attach calls ADD of the plugins.
	Attach(ctx context.Context, a *network.Attachment) error
	// Detach calls DEL of the plugins, with the path of the network namespace, "" if there is none.
	Detach(ctx context.Context, a *network.Attachment, netns string) error
	// Current is the network configuration of now; false if there is none that can be read.
	Current() (name string, list json.RawMessage, ok bool)
}

// Images has the images of containers; package image has it.
type Images interface {
	// Find finds an image by a name or ID; ErrNotFound if there is none.
	Find(ref string) (*image.Image, error)
	// Resolve finds an image by a name or ID.
	Resolve(ref string) (*image.Image, bool)
	// Hold keeps the layers of an image for a holder and returns their directories.
	Hold(imageID, holder string) ([]string, *image.Image, error)
	// Release is the reverse of Hold.
	Release(imageID, holder string)
	// RemoveUnused removes layers and blobs that no image and no holder needs.
	RemoveUnused(ctx context.Context) error
	// Quarantined are the records of images that could not be read.
	Quarantined() []image.Quarantined
}

// Mounts is the area in which root file systems, volumes and shared memory are mounted; package rootfs has it.
type Mounts interface {
	// Dir is the directory of the area.
	Dir() string
	// RootPath is where MountRoot mounts.
	RootPath(id string) string
	// ShmPath is where Shm mounts.
	ShmPath(id string) string
	// List are the IDs that have a directory in the area.
	List() ([]string, error)
	// Mounted reports whether anything of an ID is mounted.
	Mounted(id string) (bool, error)
	// Admit lets a group pass to the mounts of an ID.
	Admit(id string, gid uint32) error
	// MountRoot mounts a root file system.
	MountRoot(id string, o rootfs.Overlay) (string, error)
	// MountImage mounts an image as volume n.
	MountImage(id string, n int, v rootfs.ImageVolume) (string, error)
	// IDMapVolume mounts an id-mapped copy of a volume as volume n.
	IDMapVolume(id string, n int, v rootfs.Volume) (string, error)
	// LockBinds mounts locked copies of what is to be bound and returns their paths.
	LockBinds(id string, binds []rootfs.Bind) ([]string, error)
	// Shm mounts the shared memory of a pod.
	Shm(id string, size int64, owner rootfs.Owner, context string) (string, error)
	// MakePlace makes the directory of a volume in a root file system.
	MakePlace(id, path string, owner rootfs.Owner) (string, error)
	// Own gives a file or directory to an owner.
	Own(path string, owner rootfs.Owner) error
	// ReadFile reads a file of a root file system.
	ReadFile(id, path string, limit int64) ([]byte, error)
	// Unmount unmounts everything of an ID.
	Unmount(id string) error
}

// Pinder runs containers; package client has it.
type Pinder interface {
	// Create creates a container. Its process waits for Start.
	Create(ctx context.Context, r wire.Create) (wire.Created, error)
	// Start starts the process of a container.
	Start(ctx context.Context, id string) error
	// StopSignal sends the stop signal, once in the life of a container.
	StopSignal(ctx context.Context, id string, sig unix.Signal) error
	// KillAll kills all processes of a container and waits until they have ended.
	KillAll(ctx context.Context, id string) error
	// Delete kills and removes a container. An unknown one is no error.
	Delete(ctx context.Context, r wire.Delete) error
	// Adopt takes over a process that pinder does not know.
	Adopt(ctx context.Context, r wire.Adopt) (wire.Created, error)
	// Containers lists the containers.
	Containers(ctx context.Context) ([]wire.Container, error)
	// Update changes the resources of a container.
	Update(ctx context.Context, id string, resources []byte, timeout time.Duration) error
	// Checkpoint writes the state of the processes of a container to a directory.
	Checkpoint(ctx context.Context, r wire.Checkpoint) error
	// Exec runs a command in a container.
	Exec(ctx context.Context, r wire.Exec) (*client.Execution, error)
	// Attach connects to the streams of a container.
	Attach(ctx context.Context, r wire.Attach) (*client.Attachment, error)
	// Resize sets the size of a terminal.
	Resize(ctx context.Context, id, execID string, w, h uint16) error
	// ReopenLog continues the log of a container in a new file.
	ReopenLog(ctx context.Context, id string) error
	// Processes are the PIDs of pinder.
	Processes(ctx context.Context) (reaper, inner int, err error)
}
