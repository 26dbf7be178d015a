package pod

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/pin"
)

// Paths says where this instance keeps its files. Two instances with different paths share nothing.
type Paths struct {
	// Root is the durable directory (/var/lib/pinfold).
	Root string
	// State is the directory that a reboot empties (/run/pinfold).
	State string
	// NetNS is the directory of network namespace pins (/run/netns), which the instances of a host may share.
	NetNS string
	// Pinder is the binary of pinder. A copy of it is PID 1 of pods that share their PID namespace.
	Pinder string
}

// netNSPrefix marks pins of Pinfold in a directory that others use too.
const netNSPrefix = "pinfold-"

// NetNSPin is where a sandbox's network namespace is pinned.
func (p Paths) NetNSPin(id string) string { return filepath.Join(p.NetNS, netNSPrefix+id) }

// Pins is the directory of the other pins, with a directory for each sandbox.
func (p Paths) Pins() string { return filepath.Join(p.State, "ns") }

// Pin is where a namespace of a sandbox is pinned.
func (p Paths) Pin(id string, kind pin.Kind) string {
	if kind == pin.Net {
		return p.NetNSPin(id)
	}
	return filepath.Join(p.Pins(), id, kindName[kind])
}

var kindName = map[pin.Kind]string{pin.User: "user", pin.IPC: "ipc", pin.UTS: "uts", pin.PID: "pid"}

// Bundles is the directory of the OCI bundles.
func (p Paths) Bundles() string { return filepath.Join(p.State, "bundles") }

// Bundle is the OCI bundle of a container, or of a pod's PID 1.
func (p Paths) Bundle(id string) string { return filepath.Join(p.Bundles(), id) }

// InitDir is the directory of the copy of Pinder that pods run as PID 1. It is durable because the state directory
// may be on a file system that is mounted noexec.
func (p Paths) InitDir() string { return filepath.Join(p.Root, "init") }

func (p Paths) runtimes() string { return filepath.Join(p.State, "runtime") }

// RuntimeRoot is where an OCI runtime keeps its own state.
func (p Paths) RuntimeRoot(handler string) string { return filepath.Join(p.runtimes(), handler) }

// Mounts is the directory of the mount area.
func (p Paths) Mounts() string { return filepath.Join(p.State, "mnt") }

// Images is the directory of the image store.
func (p Paths) Images() string { return filepath.Join(p.Root, "images") }

// CNICache is where the network plugins' results are kept.
func (p Paths) CNICache() string { return filepath.Join(p.Root, "cni") }

// Sandbox is the directory of all that is durable of one sandbox.
func (p Paths) Sandbox(id string) string { return filepath.Join(p.Root, podsDir, id) }

// Containers is the directory of the records of a sandbox's containers.
func (p Paths) Containers(id string) string { return filepath.Join(p.Sandbox(id), containersDir) }

// Files is the directory of the files that a sandbox's containers share.
func (p Paths) Files(id string) string { return filepath.Join(p.Sandbox(id), "files") }

// Layer is the directory of a container's writable layer.
func (p Paths) Layer(sandbox, container string) string {
	return filepath.Join(p.Sandbox(sandbox), "layers", container)
}

// Upper is the directory of what a container has written, within its layer.
func (p Paths) Upper(sandbox, container string) string {
	return filepath.Join(p.Layer(sandbox, container), "upper")
}

// Exit is the file in which pinder says how a container ended.
func (p Paths) Exit(sandbox, container string) string {
	return filepath.Join(p.Sandbox(sandbox), containersDir, container+".exit")
}

// HasRecord reports whether there is a record of a pod or container of that ID, whole or not.
func (p Paths) HasRecord(id string) bool {
	if _, err := os.Stat(p.Sandbox(id)); err == nil {
		return true
	}
	pods, _ := os.ReadDir(filepath.Join(p.Root, podsDir))
	return slices.ContainsFunc(pods, func(pod os.DirEntry) bool {
		records, _ := os.ReadDir(p.Containers(pod.Name()))
		return slices.ContainsFunc(records, func(r os.DirEntry) bool { return strings.HasPrefix(r.Name(), id) })
	})
}

// Make creates the directories and closes them to all users but root, whatever the umask is and whatever mode they had. The
// node's users must not reach what containers write: it may be a set-user-ID program. A pod's mapped root has to reach its
// root file system by path. So the directories on that way can be passed, but not listed, and in them only the group of
// the pod's mapped root can enter the pod's directory (see rootfs.Area.Admit).
func (p Paths) Make() error {
	root := os.FileMode(0o700)
	if rel, err := filepath.Rel(p.Root, p.State); err == nil && filepath.IsLocal(rel) {
		root = passage
	}
	for _, dir := range []struct {
		path string
		mode os.FileMode
	}{
		{p.Root, root},
		{p.State, passage},
		{filepath.Join(p.Root, podsDir), 0o700},
		{p.Images(), 0o700},
		{p.CNICache(), 0o700},
		{p.Pins(), 0o700},
		{p.runtimes(), 0o700},
		{p.Bundles(), passage},
		{p.Mounts(), passage},
	} {
		if err := ownDir(dir.path, dir.mode); err != nil {
			return err
		}
	}
	// This is the system's directory. Everyone may list it, as ip-netns(8) makes it.
	return os.MkdirAll(p.NetNS, 0o755)
}

// passage is the mode of a directory that all may pass and only root may list.
const passage = 0o711

// ownDir makes a directory that belongs to root and has that mode.
func ownDir(path string, mode os.FileMode) error {
	if err := os.MkdirAll(path, mode); err != nil {
		return err
	}
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	return errors.Join(dir.Chown(0, 0), dir.Chmod(mode))
}
