package lifecycle

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"

	"github.com/pinfold-run/pinfold/internal/kernel/durable"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/rootfs"
	"github.com/pinfold-run/pinfold/internal/selinux"
)

// initBinary is what pods that share their PID namespace run as PID 1: a copy of pinder, alone in a directory.
type initBinary struct {
	paths pod.Paths
	// label is that of files that all containers may run, "" without SELinux.
	label string

	mu     sync.Mutex
	copied bool
}

// pinderName is the copy's name in its directory.
const pinderName = "pinder"

// mount mounts the copy for a pod and returns its path there. The mount is a read-only overlay. A container with CAP_SYS_ADMIN
// may enter the mount namespace of its pod's PID 1 and make a bind mount writable. Then it could write to the node's own
// binary. An overlay without an upper directory cannot be made writable.
func (b *initBinary) mount(mounts initMounts, rec *pod.SandboxRecord) (string, error) {
	dir, err := b.dir()
	if err != nil {
		return "", err
	}
	if rec.Mappings() != nil {
		group := rec.RootOwner().GID
		if err := mounts.Admit(rec.ID, group); err != nil {
			return "", err
		}
	}
	view, err := mounts.MountImage(rec.ID, 0, rootfs.ImageVolume{Lower: []string{dir}})
	return filepath.Join(view, pinderName), err
}

// dir returns the directory of the copy. It is made once in the life of a daemon, if it differs from the binary. Pods that
// run an older copy keep it. Under SELinux the copy has a label that containers may run. The label of the installed binary
// depends on the policy.
func (b *initBinary) dir() (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	dir := b.paths.InitDir()
	if b.copied {
		return dir, nil
	}
	// Only root can reach it by path; the pod's root sees it in the overlay.
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.Chmod(dir, 0o755)); err != nil {
		return "", err
	}
	path := filepath.Join(dir, pinderName)
	data, err := os.ReadFile(b.paths.Pinder)
	if err != nil {
		return "", err
	}
	if there, err := os.ReadFile(path); err != nil || !bytes.Equal(there, data) {
		// The pods see all that is in the directory. A crash of an older version may have left a file ".new".
		err := os.Remove(path + ".new")
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		if err := errors.Join(err, durable.RemoveTemporary(dir), durable.Write(path, data)); err != nil {
			return "", err
		}
	}
	// Whatever the umask: the pod's mapped root has to be able to run it.
	err = os.Chmod(path, 0o755)
	if b.label != "" {
		err = errors.Join(err, selinux.SetLabel(dir, b.label), selinux.SetLabel(path, b.label))
	}
	b.copied = err == nil
	return dir, err
}
