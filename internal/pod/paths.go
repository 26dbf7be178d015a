package pod

import (
	"os"
	"path/filepath"

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
	// Pinder is the supervisor binary, also mounted as PID 1 into pods that share their PID namespace.
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

// labelledPinder is a copy of Pinder that pods' policies let them execute. It is durable because the state directory
// may be on a file system that executes nothing.
func (p Paths) labelledPinder() string { return filepath.Join(p.Root, "pinder-init") }

func (p Paths) runtimeRoot(handler string) string { return filepath.Join(p.State, "runtime", handler) }

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

// Make creates the directories. Those on the way to a root file system must be passable for the
// pod's mapped root, which on the host is nobody in particular: 0711.
func (p Paths) Make() error {
	for _, dir := range []string{p.Root, p.State, p.NetNS, p.pins(), p.bundles(), filepath.Join(p.Root, podsDir)} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return err
		}
	}
	return nil
}

const (
	podsDir       = "pods"
	containersDir = "containers"
)

func sandboxKey(id string) string { return podsDir + "/" + id + "/pod" }

func containerKey(sandbox, id string) string {
	return podsDir + "/" + sandbox + "/" + containersDir + "/" + id
}
