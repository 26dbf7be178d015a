package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pinder/client"
	"github.com/pinfold-run/pinfold/internal/tree"
	"github.com/pinfold-run/pinfold/pin"
)

// startInit gives a pod that shares its PID namespace its PID 1: "pinder init", run by the pod's OCI
// runtime under the sandbox's own ID, with nothing in its root but that binary. Other pods have none.
func (s *Sandboxes) startInit(ctx context.Context, box *Sandbox) error {
	rec := box.Record()
	if !rec.SharesPID() {
		return nil
	}
	if err := s.writeInitBundle(rec); err != nil {
		return err
	}
	runtime, err := s.node.runtimeOf(ctx, rec)
	if err != nil {
		return err
	}
	limits, err := s.node.takeRlimits(rec, rec.ID)
	if err != nil {
		return err
	}
	m := s.node.means(rec)
	created, err := s.node.Pinder.Create(ctx, client.CreateRequest{
		Rlimits: limits,
		ID:      rec.ID, Bundle: s.node.Paths.bundle(rec.ID),
		Runtime: runtime.Path, RuntimeRoot: m.RuntimeRoot,
		SystemdCgroup: m.SystemdCgroup, Timeout: runtimeTimeout,
		Stdio: client.Stdio{Owner: rec.hostUser(specs.User{})},
	})
	if err != nil {
		return err
	}
	process := Process{PID: created.PID, StartTime: created.StartTime}
	if err := s.node.changeSandbox(box, func(r *SandboxRecord) { r.Init = process }); err != nil {
		return err
	}
	if err := s.pinPID(box, process); err != nil {
		return err
	}
	return s.node.Pinder.Start(ctx, rec.ID)
}

func (s *Sandboxes) writeInitBundle(rec *SandboxRecord) error {
	dir := s.node.Paths.bundle(rec.ID)
	root := filepath.Join(dir, "rootfs")
	// The pod's root passes to its root file system, and no other user of the node at any time: see rootfs.Area.Admit.
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := rec.admit(dir); err != nil {
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
	host, err := s.node.hostFor(rec)
	if err != nil {
		return err
	}
	if err := s.node.labelFiles(rec, root, filepath.Join(root, "proc"), filepath.Join(root, "dev"), filepath.Join(root, "pinder")); err != nil {
		return err
	}
	binary, err := s.binary.mount(s.node, rec)
	if err != nil {
		return err
	}
	return s.node.writeBundleSpec(rec.ID, ocispec.Init(host, s.node.forSpec(rec), ocispec.InitFiles{Rootfs: root, Pinder: binary}))
}

// admit closes a directory to all but the node's root and the group of the pod's.
func (r *SandboxRecord) admit(dir string) error {
	mode := os.FileMode(0o700)
	group := int(r.rootOwner().GID)
	if group != 0 {
		mode = 0o710
	}
	return errors.Join(os.Chown(dir, 0, group), os.Chmod(dir, mode))
}

// pinPID pins the PID namespace of a process that is held before its start, and makes sure that the
// pid meant that process all along.
func (s *Sandboxes) pinPID(box *Sandbox, process Process) error {
	ns, err := pin.Open(fmt.Sprintf("/proc/%d/ns/pid", process.PID))
	if err != nil {
		return err
	}
	defer ns.Close()
	if started, err := startTime(process.PID); err != nil || started != process.StartTime {
		return fmt.Errorf("PID 1 of the pod (pid %d) is gone already", process.PID)
	}
	if err := os.MkdirAll(filepath.Join(s.node.Paths.pins(), box.ID), 0o700); err != nil {
		return err
	}
	if box.pinned != nil {
		_, box.pinned[pin.PID.String()] = ns.ID()
	}
	return ns.Pin(s.node.Paths.pin(box.ID, pin.PID))
}

// InitEnded takes an exit that pinder reports, of whatever process; it returns at once. A pod whose PID 1 has
// ended, and with it all processes in the pod's PID namespace, is not ready any more: no process can join that
// namespace (pid_namespaces(7)). What it holds is given back as at the next start of the daemon.
func (s *Sandboxes) InitEnded(exit client.Exit) {
	box, err := s.book.Sandbox(exit.ID)
	if err != nil || box.ID != exit.ID || exit.ExecID != "" {
		return
	}
	go func() {
		<-s.containers.connected
		box.order.Lock()
		defer box.order.Unlock()
		rec := box.Record()
		if box.erased || rec.State != Ready || !rec.SharesPID() || rec.Init.alive() {
			return
		}
		s.node.Log.Warn("sandbox is not ready any more", "sandbox", box.ID, "reason", initEnded)
		s.node.noteSandbox(box, func(r *SandboxRecord) { r.State, r.Reason = Stopped, initEnded })
		s.debts.add(box)
	}()
}

const initEnded = "its PID 1 has ended"

// endInit ends PID 1 and with it whatever else is in the PID namespace.
func (s *Sandboxes) endInit(ctx context.Context, box *Sandbox) error {
	rec := box.Record()
	if !rec.SharesPID() {
		return nil
	}
	if err := s.node.Pinder.Delete(ctx, s.node.deletion(rec, rec.ID)); err != nil {
		return err
	}
	// Its root is one that a container with CAP_SYS_ADMIN may have made writable, and filled.
	return tree.Remove(ctx, s.node.Paths.bundle(rec.ID))
}
