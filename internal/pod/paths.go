package pod

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/pin"
)

// Paths says where this instance keeps what. Two instances with different paths share nothing.
type Paths struct {
	// Root is the durable directory (/var/lib/pinfold).
	Root string
	// State is the directory that a reboot empties (/run/pinfold).
	State string
	// NetNS is the directory of network namespace pins (/run/netns), which the instances of a host may share.
	NetNS string
	// Pinder is the supervisor binary; a copy of it is PID 1 of pods that share their PID namespace.
	Pinder string
}

// netNSPrefix marks pins of Pinfold in a directory that others use too.
const netNSPrefix = "pinfold-"

func (p Paths) netNS(id string) string { return filepath.Join(p.NetNS, netNSPrefix+id) }

func (p Paths) pins() string { return filepath.Join(p.State, "ns") }

func (p Paths) pin(id string, kind pin.Kind) string {
	if kind == pin.Net {
		return p.netNS(id)
	}
	return filepath.Join(p.pins(), id, kindName[kind])
}

var kindName = map[pin.Kind]string{pin.User: "user", pin.IPC: "ipc", pin.UTS: "uts", pin.PID: "pid"}

func (p Paths) bundles() string { return filepath.Join(p.State, "bundles") }

func (p Paths) bundle(id string) string { return filepath.Join(p.bundles(), id) }

// initDir is the directory of the copy of Pinder that pods run as PID 1. It is durable because the state directory
// may be on a file system that executes nothing.
func (p Paths) initDir() string { return filepath.Join(p.Root, "init") }

func (p Paths) runtimes() string { return filepath.Join(p.State, "runtime") }

func (p Paths) runtimeRoot(handler string) string { return filepath.Join(p.runtimes(), handler) }

// Mounts is the directory of the mount area.
func (p Paths) Mounts() string { return filepath.Join(p.State, "mnt") }

// Images is the directory of the image store.
func (p Paths) Images() string { return filepath.Join(p.Root, "images") }

// CNICache is where the network plugins' results are kept.
func (p Paths) CNICache() string { return filepath.Join(p.Root, "cni") }

// sandbox is the directory of all that is durable of one sandbox.
func (p Paths) sandbox(id string) string { return filepath.Join(p.Root, podsDir, id) }

func (p Paths) files(id string) string { return filepath.Join(p.sandbox(id), "files") }

// layer is the directory of a container's writable layer.
func (p Paths) layer(sandbox, container string) string {
	return filepath.Join(p.sandbox(sandbox), "layers", container)
}

// Upper is the directory of what a container has written, within its layer.
func (p Paths) Upper(sandbox, container string) string {
	return filepath.Join(p.layer(sandbox, container), "upper")
}

func (p Paths) exit(sandbox, container string) string {
	return filepath.Join(p.sandbox(sandbox), containersDir, container+".exit")
}

// Make creates the directories and closes them to all users but root, whatever the umask and whatever mode an older
// version or the operator gave them: what containers write, set-user-ID programs among it, is not for the node's
// users. Open for passage, not for listing, is only the way to what a pod's mapped root has to reach by path, its
// root file system; each pod's part of it lets that pod's own group through (rootfs.Area.Admit).
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
		{p.pins(), 0o700},
		{p.runtimes(), 0o700},
		{p.bundles(), passage},
		{p.Mounts(), passage},
	} {
		if err := ownDir(dir.path, dir.mode); err != nil {
			return err
		}
	}
	// The system's, which lists it to everyone: as ip-netns(8) makes it.
	return os.MkdirAll(p.NetNS, 0o755)
}

// passage is the mode of a directory that all may pass and only root may list.
const passage = 0o711

// ownDir makes path a directory of root's with a mode.
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

const (
	podsDir       = "pods"
	containersDir = "containers"
)

func sandboxKey(id string) string { return podsDir + "/" + id + "/pod" }

func containerKey(sandbox, id string) string {
	return podsDir + "/" + sandbox + "/" + containersDir + "/" + id
}
