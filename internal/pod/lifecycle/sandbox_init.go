package lifecycle

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/rootfs"
	"github.com/pinfold-run/pinfold/internal/tree"
	"github.com/pinfold-run/pinfold/pin"
)

// sandboxInit is the step "init": PID 1 of a pod that shares its PID namespace. It is "pinder init", run by the pod's OCI
// runtime under the sandbox's own ID, with nothing in its root but that binary. Other pods have none.
type sandboxInit struct {
	places   *pod.Places
	records  *pod.Records
	runtimes runtimes
	view     view
	labels   labels
	binary   *initBinary
	mounts   initMounts
	pins     initPins
	cgroups  Cgroups
	pinder   processes
	log      *slog.Logger
}

type initMounts interface {
	owners
	// Admit lets a group of the node pass to the mounts of a sandbox or container.
	Admit(id string, gid uint32) error
	MountImage(id string, n int, v rootfs.ImageVolume) (string, error)
}

type initPins interface {
	// PinPID pins the PID namespace of a process at path and returns its inode number. It fails if the process has ended.
	PinPID(process proc.Process, path string) (inode uint64, err error)
}

// Do starts PID 1. Its process is in the record before anything of the pod joins it.
func (s sandboxInit) Do(ctx context.Context, box *pod.Sandbox) error {
	rec := box.Record()
	if !rec.SharesPID() {
		return nil
	}
	config, err := s.makeBundle(rec)
	if err != nil {
		return err
	}
	runtime, err := s.runtimes.find(ctx, rec)
	if err != nil {
		return err
	}
	limits, err := s.runtimes.takeRlimits(rec, config)
	if err == nil {
		err = s.places.WriteBundleSpec(rec.ID, config)
	}
	if err != nil {
		return err
	}
	m := s.places.Means(rec)
	call := m.Call()
	call.Binary, call.Rlimits = runtime.Path, limits
	created, err := s.pinder.Create(ctx, wire.Create{
		ID: rec.ID, Bundle: s.places.Bundle(rec.ID), Runtime: call, Owner: rec.HostUser(specs.User{}),
	})
	if err != nil {
		return err
	}
	if err := s.records.ChangeSandbox(box, func(r *pod.SandboxRecord) { r.Init = created.Process }); err != nil {
		return err
	}
	if err := s.pinPID(box, created.Process); err != nil {
		return err
	}
	return s.pinder.Start(ctx, rec.ID)
}

// Undo kills PID 1 and with it whatever else is in the PID namespace. Of a pod without one, it removes the group that
// package containerd made in its place: no Do of a step has, so it may be there or not. It reads the ID, the parent of the
// cgroups, whether the pod has a PID 1, and the means to delete it.
func (s sandboxInit) Undo(ctx context.Context, box *pod.Sandbox) error {
	rec := box.Record()
	if !rec.SharesPID() {
		s.removeStandIn(rec)
		return nil
	}
	if err := s.pinder.Delete(ctx, s.places.Deletion(rec, rec.ID)); err != nil {
		return err
	}
	// Its root is one that a container with CAP_SYS_ADMIN may have made writable, and filled.
	return tree.Remove(ctx, s.places.Bundle(rec.ID))
}

// removeStandIn never fails a stop: whoever owns the pod's group removes it with all that is in it.
func (s sandboxInit) removeStandIn(rec *pod.SandboxRecord) {
	if err := s.cgroups.Remove(s.places.StandInGroup(rec)); err != nil {
		s.log.Warn("the group that stands for a pod was not removed", "pod_id", rec.ID, "error", err)
	}
}

// makeBundle makes the bundle but for its configuration, which it returns.
func (s sandboxInit) makeBundle(rec *pod.SandboxRecord) (*specs.Spec, error) {
	dir := s.places.Bundle(rec.ID)
	root := filepath.Join(dir, "rootfs")
	// The pod's root passes to its root file system, and no other user of the node at any time: see rootfs.Area.Admit.
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := s.admit(rec, dir); err != nil {
		return nil, err
	}
	// The mount points are made here: the pod's root has no right to make them in a directory of the host's.
	for _, point := range []string{"proc", "dev"} {
		if err := os.MkdirAll(filepath.Join(root, point), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(root, "pinder"), nil, 0o755); err != nil {
		return nil, err
	}
	for _, name := range []string{"", "proc", "dev", "pinder"} { // whatever the umask: the pod's root passes
		if err := os.Chmod(filepath.Join(root, name), 0o755); err != nil {
			return nil, err
		}
	}
	host, err := s.runtimes.hostFor(rec)
	if err != nil {
		return nil, err
	}
	if err := s.labels.set(rec, root, filepath.Join(root, "proc"), filepath.Join(root, "dev"), filepath.Join(root, "pinder")); err != nil {
		return nil, err
	}
	binary, err := s.binary.mount(s.mounts, rec)
	if err != nil {
		return nil, err
	}
	return ocispec.Init(host, s.view.sandbox(rec), ocispec.InitFiles{Rootfs: root, Pinder: binary}), nil
}

// admit closes a directory to all but the node's root and the group of the pod's.
func (s sandboxInit) admit(rec *pod.SandboxRecord, dir string) error {
	mode := os.FileMode(0o700)
	group := rec.RootOwner().GID
	if group != 0 {
		mode = 0o710
	}
	return errors.Join(s.mounts.Own(dir, rootfs.Owner{GID: group}), os.Chmod(dir, mode))
}

func (s sandboxInit) pinPID(box *pod.Sandbox, process proc.Process) error {
	if err := os.MkdirAll(filepath.Join(s.places.Pins(), box.ID), 0o700); err != nil {
		return err
	}
	inode, err := s.pins.PinPID(process, s.places.Pin(box.ID, pin.PID))
	if err == nil && box.Pinned != nil {
		box.Pinned[pin.PID.String()] = inode
	}
	return err
}
