package lifecycle

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/handler"
	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/network"
	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/steps"
)

// Base is what every operation stands on: the books of the node, and the engine that runs steps.
type Base struct {
	Places  *pod.Places
	Book    *pod.Book
	Records *pod.Records
	Engine  *steps.Engine
	Debts   Debts
	// Host is what probing found; see package host.
	Host ocispec.Host
	Log  *slog.Logger
}

// Parts are what steps make pods and containers of. A step holds those that it works with. The daemon gives the real
// ones. Tests give others, to run an operation without root and to inject faults.
type Parts struct {
	Handlers Handlers
	Pins     Pins
	Mounts   Mounts
	Cgroups  Cgroups
	Network  Network
	Images   Images
	Pinder   Pinder
	// MountTable may be nil: then each look at a pod looks at all its pins.
	MountTable MountTable
	// Plugins see and adjust pods and containers; nil if there are none.
	Plugins pod.Plugins
}

// New returns the operations on sandboxes and those on their containers.
func New(base Base, parts Parts) (*Sandboxes, *Containers) {
	containers := newContainers(base, parts)
	return newSandboxes(base, parts, containers), containers
}

// Debts is the list of the objects that owe something: an undo that could not be done. See package recovery.
type Debts interface {
	// Add puts a *pod.Sandbox or a *pod.Container on the list.
	Add(object any)
}

// Handlers finds OCI runtimes.
type Handlers interface {
	// Find returns the runtime of a handler, that of the default handler for "". ErrNotFound if there is none.
	Find(ctx context.Context, name string) (handler.Handler, error)
	// At returns the runtime of a handler that pods were made with, which may be configured no more.
	At(ctx context.Context, name, binary string) (handler.Handler, error)
}

// MountTable counts changes of the mount table; see package mountinfo.
type MountTable interface {
	// Changes is another number than before if anything was mounted or unmounted since.
	Changes() uint64
}

// Cgroups are the hierarchies of groups; see package cgroup.
type Cgroups interface {
	// Pure reports whether there is only the hierarchy of version 2.
	Pure() bool
	// Remove removes a group and those below it.
	Remove(path string) error
}

// Network attaches pods; see package network.
type Network interface {
	// Plan says what an attachment will be and owe.
	Plan(r network.Request) (network.Attachment, error)
	// Attach calls ADD of the plugins.
	Attach(ctx context.Context, a *network.Attachment) error
	// Detach calls DEL of the plugins, with the path of the network namespace, "" if there is none.
	Detach(ctx context.Context, a *network.Attachment, netns string) error
}

// Images has the images of the node; see package image.
type Images interface {
	// Find finds an image by a name or ID. ErrNotFound if there is none.
	Find(ref string) (*image.Image, error)
	// Hold keeps the layers of an image for a holder, and says where they are. It may be repeated.
	Hold(id, holder string) (layers []string, img *image.Image, err error)
	// Release is the reverse of Hold.
	Release(id, holder string)
}

// Mounts makes and removes mounts; see package rootfs.
type Mounts interface {
	shmMounts
	initMounts
	rootMounts
	volumeMounts
	bundleMounts
	bindMounts
}

// Pins makes namespaces, pins them to files and works in them. KernelPins has them.
type Pins interface {
	namespacePins
	networkPins
	userPins
	sysctlPins
	initPins
}

// Pinder calls the OCI runtime and holds what runs; see package client.
type Pinder interface {
	processes
	// StopSignal sends the stop signal, once in the life of a container.
	StopSignal(ctx context.Context, id string, sig unix.Signal) error
	// KillAll kills every process of a container.
	KillAll(ctx context.Context, id string) error
	// Update changes the resources of a container.
	Update(ctx context.Context, id string, resources []byte, timeout time.Duration) error
	// Checkpoint writes the state of a container's processes to a directory.
	Checkpoint(ctx context.Context, r wire.Checkpoint) error
	// ReopenLog makes the log of a container go on in a new file.
	ReopenLog(ctx context.Context, id string) error
	// Containers lists the containers.
	Containers(ctx context.Context) ([]wire.Container, error)
}

// processes makes and removes the processes of containers and of pods.
type processes interface {
	// Create creates a container. Its process waits for Start.
	Create(ctx context.Context, r wire.Create) (wire.Created, error)
	// Delete kills and removes a container. An unknown one is no error.
	Delete(ctx context.Context, r wire.Delete) error
	// Start runs the program of a container.
	Start(ctx context.Context, id string) error
}

// on binds a step to its sandbox.
func on(step func(context.Context, *pod.Sandbox) error, box *pod.Sandbox) func(context.Context) error {
	return func(ctx context.Context) error { return step(ctx, box) }
}

// in binds a step to its container and the container's sandbox.
func in(step func(context.Context, *pod.Sandbox, *pod.Container) error, box *pod.Sandbox, c *pod.Container) func(context.Context) error {
	return func(ctx context.Context) error { return step(ctx, box, c) }
}
