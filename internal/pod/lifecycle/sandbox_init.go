package lifecycle

import (
	"context"
	"errors"
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

// startInit gives a pod that shares its PID namespace its PID 1: "pinder init", run by the pod's OCI
// runtime under the sandbox's own ID, with nothing in its root but that binary. Other pods have none.
func (s *Sandboxes) startInit(ctx context.Context, box *pod.Sandbox) error {
	rec := box.Record()
	if !rec.SharesPID() {
		return nil
	}
	if err := s.writeInitBundle(rec); err != nil {
		return err
	}
	runtime, err := s.node.RuntimeOf(ctx, rec)
	if err != nil {
		return err
	}
	limits, err := takeRlimits(s.node, rec, rec.ID)
	if err != nil {
		return err
	}
	m := s.node.Means(rec)
	call := m.Call()
	call.Binary, call.Rlimits = runtime.Path, limits
	created, err := s.node.Pinder.Create(ctx, wire.Create{
		ID: rec.ID, Bundle: s.node.Paths.Bundle(rec.ID), Runtime: call, Owner: rec.HostUser(specs.User{}),
	})
	if err != nil {
		return err
	}
	if err := s.node.ChangeSandbox(box, func(r *pod.SandboxRecord) { r.Init = created.Process }); err != nil {
		return err
	}
	if err := s.pinPID(box, created.Process); err != nil {
		return err
	}
	return s.node.Pinder.Start(ctx, rec.ID)
}

func (s *Sandboxes) writeInitBundle(rec *pod.SandboxRecord) error {
	dir := s.node.Paths.Bundle(rec.ID)
	root := filepath.Join(dir, "rootfs")
	// The pod's root passes to its root file system, and no other user of the node at any time: see rootfs.Area.Admit.
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := s.admit(rec, dir); err != nil {
		return err
	}
	// The mount points are made here: the pod's root has no right to make them in a directory of the host's.
	for _, point := range []string{"proc", "dev"} {
		if err := os.MkdirAll(filepath.Join(root, point), 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(root, "pinder"), nil, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"", "proc", "dev", "pinder"} { // whatever the umask: the pod's root passes
		if err := os.Chmod(filepath.Join(root, name), 0o755); err != nil {
			return err
		}
	}
	host, err := hostFor(s.node, rec)
	if err != nil {
		return err
	}
	if err := labelFiles(s.node, rec, root, filepath.Join(root, "proc"), filepath.Join(root, "dev"), filepath.Join(root, "pinder")); err != nil {
		return err
	}
	binary, err := s.binary.mount(s.node, rec)
	if err != nil {
		return err
	}
	return s.node.WriteBundleSpec(rec.ID, ocispec.Init(host, s.node.ForSpec(rec), ocispec.InitFiles{Rootfs: root, Pinder: binary}))
}

// admit closes a directory to all but the node's root and the group of the pod's.
func (s *Sandboxes) admit(r *pod.SandboxRecord, dir string) error {
	mode := os.FileMode(0o700)
	group := r.RootOwner().GID
	if group != 0 {
		mode = 0o710
	}
	return errors.Join(s.node.Mounts.Own(dir, rootfs.Owner{GID: group}), os.Chmod(dir, mode))
}

// pinPID pins the PID namespace of a process that is held before its start.
func (s *Sandboxes) pinPID(box *pod.Sandbox, process proc.Process) error {
	if err := os.MkdirAll(filepath.Join(s.node.Paths.Pins(), box.ID), 0o700); err != nil {
		return err
	}
	inode, err := s.node.Pins.PinPID(process, s.node.Paths.Pin(box.ID, pin.PID))
	if err == nil && box.Pinned != nil {
		box.Pinned[pin.PID.String()] = inode
	}
	return err
}

// InitEnded takes an exit that pinder reports, of whatever process; it returns at once. A pod whose PID 1 has
// ended, and with it all processes in the pod's PID namespace, is not ready any more: no process can join that
// namespace (pid_namespaces(7)). What it holds is given back as at the next start of the daemon.
func (s *Sandboxes) InitEnded(exit wire.Exit) {
	box, err := s.book.Sandbox(exit.ID)
	if err != nil || box.ID != exit.ID || exit.ExecID != "" {
		return
	}
	go func() {
		<-s.containers.connected
		box.Order.Lock()
		defer box.Order.Unlock()
		rec := box.Record()
		if box.Erased || rec.State != pod.Ready || !rec.SharesPID() || rec.Init.Alive() {
			return
		}
		s.node.Log.Warn("sandbox is not ready any more", "sandbox", box.ID, "reason", initEnded)
		s.node.NoteSandbox(box, func(r *pod.SandboxRecord) { r.State, r.Reason = pod.Stopped, initEnded })
		s.debts.Add(box)
	}()
}

const initEnded = "its PID 1 has ended"

// endInit ends PID 1 and with it whatever else is in the PID namespace.
func (s *Sandboxes) endInit(ctx context.Context, box *pod.Sandbox) error {
	rec := box.Record()
	if !rec.SharesPID() {
		return nil
	}
	if err := s.node.Pinder.Delete(ctx, s.node.Deletion(rec, rec.ID)); err != nil {
		return err
	}
	// Its root is one that a container with CAP_SYS_ADMIN may have made writable, and filled.
	return tree.Remove(ctx, s.node.Paths.Bundle(rec.ID))
}
