package scenario_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/network"
	"github.com/pinfold-run/pinfold/internal/pinder/client"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/pod/lifecycle"
	"github.com/pinfold-run/pinfold/internal/rootfs"
	"github.com/pinfold-run/pinfold/pin"
)

// world is what outlives a daemon: the kernel's pins, mounts and processes, pinder, the network and the image store. All
// of it is made up but the processes, the records and the files. What the daemon asks of it goes into the transcript.
type world struct {
	t   *testing.T
	dir string

	mu     sync.Mutex
	lines  []string          // the transcript of the command in progress
	header string            // the operation that the last lines belong to
	names  map[string]string // by ID
	faults []*fault
	boot   int

	// now is the daemon that runs; nil after a crash.
	now *daemon
	waiting

	inodes     uint64
	pins       map[string]uint64 // by path
	mounts     map[string][]string
	held       map[string][]string // images by holder, as the daemon that runs has them in memory
	attached   map[string]bool
	containers map[string]*container
	// processes are those of all containers, also of those that pinder has lost. They end with the test.
	processes []*os.Process
}

// fault is what a command has ordered for a call of a part, or after a step.
type fault struct {
	call  string
	times int // how often still; -1 for ever
	text  string
	crash string // "before" or "after" the call's effect
	hangs bool
}

// container is one of pinder's. Its process is real, and sleeps.
type container struct {
	phase    string
	command  *exec.Cmd
	process  proc.Process
	exitFile string
	exit     *wire.Exit
	stubborn bool // it ignores the stop signal
	signals  int
}

// take returns the fault that is due at a call.
func (w *world) take(call string) *fault {
	for _, f := range w.faults {
		if f.call == call && f.times != 0 {
			if f.times > 0 {
				f.times--
			}
			return f
		}
	}
	return nil
}

// parts are the parts of one daemon. A daemon that has crashed is never answered.
type parts struct {
	*world
	d *daemon
}

// call does what a part is asked for, unless a fault was ordered.
func (p parts) call(id, call, detail string, effect func() error) error {
	return p.callWith(context.Background(), id, call, detail, effect)
}

// callWith is call for what ends with the context of its operation.
func (p parts) callWith(ctx context.Context, id, call, detail string, effect func() error) error {
	p.d.parkIfDead()
	p.mu.Lock()
	f := p.take(call)
	if f != nil && f.crash == "before" {
		p.mu.Unlock()
		p.d.crash()
	}
	text := strings.TrimSpace(call + " " + detail)
	var err error
	if f != nil && f.text != "" {
		err = errors.New(f.text)
		text += ": " + f.text
	}
	if f != nil && f.hangs {
		text += " hangs"
	}
	p.d.say(id, "", "    "+text)
	if f != nil && f.hangs {
		p.mu.Unlock()
		err = p.hang(ctx)
		p.mu.Lock()
	}
	if err == nil && effect != nil {
		err = effect()
	}
	p.mu.Unlock()
	if f != nil && f.crash == "after" {
		p.d.crash()
	}
	return err
}

// Pins.

type fakePins struct{ parts }

func (p fakePins) add(path string) (uint64, error) {
	p.inodes++
	p.pins[path] = p.inodes
	return p.inodes, errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600))
}

func (p fakePins) Make(r *pod.SandboxRecord, path func(pin.Kind) string) (map[string]uint64, error) {
	made := map[string]uint64{}
	var kinds []string
	for _, kind := range pod.KindsInOrder {
		if r.Kinds()&kind != 0 {
			kinds = append(kinds, kind.String())
		}
	}
	err := p.call(r.ID, "pins.make", strings.Join(kinds, ","), func() (err error) {
		for _, kind := range pod.KindsInOrder {
			if r.Kinds()&kind != 0 && err == nil {
				made[kind.String()], err = p.add(path(kind))
			}
		}
		return err
	})
	return made, err
}

func (p fakePins) MakeNet(path string) error {
	return p.call(path, "pins.makenet", "", func() error { _, err := p.add(path); return err })
}

func (p fakePins) PinPID(process proc.Process, path string) (inode uint64, err error) {
	err = p.call(path, "pins.pid", "", func() (err error) {
		if !process.Alive() {
			return errors.New("PID 1 of the pod is gone already")
		}
		inode, err = p.add(path)
		return err
	})
	return inode, err
}

func (p fakePins) Identify(path string) (uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if path == "/proc/thread-self/ns/net" {
		return 1, nil // the node's own
	}
	if inode, ok := p.pins[path]; ok {
		return inode, nil
	}
	return 0, &os.PathError{Op: "stat", Path: path, Err: unix.ENOENT}
}

func (p fakePins) Open(path string) (lifecycle.Namespace, error) {
	if _, err := p.Identify(path); err != nil {
		return nil, err
	}
	return fakeNamespace{p.parts, path}, nil
}

func (p fakePins) Unpin(path string) error {
	if _, err := p.Identify(path); err != nil {
		return nil
	}
	return p.call(path, "pins.unpin", kindOf(path), func() error {
		delete(p.pins, path)
		return os.Remove(path)
	})
}

// kindOf is the kind of the namespace that is pinned at a path.
func kindOf(path string) string {
	if strings.HasPrefix(filepath.Base(path), "pinfold-") {
		return "net"
	}
	return filepath.Base(path)
}

type fakeNamespace struct {
	parts
	path string
}

func (n fakeNamespace) Do(func() error) error {
	return n.call(n.path, "namespace.do", kindOf(n.path), nil)
}
func (fakeNamespace) WithFD(fn func(int) error) error { return fn(-1) }
func (fakeNamespace) Close() error                    { return nil }

// Network.

type fakeNetwork struct{ parts }

func (n fakeNetwork) Plan(r network.Request) (network.Attachment, error) {
	if r.Name != "" {
		n.mu.Lock()
		n.names[r.SandboxID] = r.Name
		n.mu.Unlock()
	}
	err := n.call(r.SandboxID, "network.plan", "", nil)
	return network.Attachment{SandboxID: r.SandboxID, NetNS: r.NetNS, IfName: "eth0", Network: "test", Owed: true}, err
}

func (n fakeNetwork) Attach(ctx context.Context, a *network.Attachment) error {
	return n.callWith(ctx, a.SandboxID, "network.attach", "", func() error {
		n.attached[a.SandboxID] = true
		a.Result = json.RawMessage(`{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.2/24"}]}`)
		return nil
	})
}

func (n fakeNetwork) Detach(_ context.Context, a *network.Attachment, netns string) error {
	detail := ""
	if netns == "" {
		detail = "without a namespace"
	}
	err := n.call(a.SandboxID, "network.detach", detail, func() error { delete(n.attached, a.SandboxID); return nil })
	if err != nil {
		a.Attempts, a.LastError = a.Attempts+1, err.Error()
		return err
	}
	a.Owed = false
	return nil
}

func (fakeNetwork) Current() (string, json.RawMessage, bool) { return "", nil, false }

// Images. There is one, busybox.

type fakeImages struct{ parts }

func busybox() *image.Image {
	return &image.Image{
		ID: "sha256:busybox", Tags: []string{"docker.io/library/busybox:latest"},
		Config: imagespec.Image{Config: imagespec.ImageConfig{Cmd: []string{"sh"}, StopSignal: "SIGTERM"}},
	}
}

func (i fakeImages) Find(ref string) (*image.Image, error) {
	if img, ok := i.Resolve(ref); ok {
		return img, nil
	}
	return nil, fmt.Errorf("image %q is not on this node: %w", ref, errdefs.ErrNotFound)
}

func (fakeImages) Resolve(ref string) (*image.Image, bool) {
	return busybox(), ref == "busybox" || ref == "sha256:busybox"
}

func (i fakeImages) Hold(id, holder string) ([]string, *image.Image, error) {
	i.mu.Lock()
	known := slices.Contains(i.held[holder], id)
	i.mu.Unlock()
	if known {
		return []string{"/layer"}, busybox(), nil
	}
	err := i.call(holder, "images.hold", "", func() error { i.held[holder] = append(i.held[holder], id); return nil })
	return []string{"/layer"}, busybox(), err
}

func (i fakeImages) Release(_, holder string) {
	_ = i.call(holder, "images.release", "", func() error { delete(i.held, holder); return nil })
}

func (i fakeImages) RemoveUnused(context.Context) error {
	return i.call("", "images.removeunused", "", nil)
}
func (fakeImages) Quarantined() (none []image.Quarantined) { return nil }

// Mounts.

type fakeMounts struct{ parts }

func (m fakeMounts) Dir() string               { return filepath.Join(m.dir, "state", "mnt") }
func (m fakeMounts) RootPath(id string) string { return filepath.Join(m.Dir(), id, "root") }
func (m fakeMounts) ShmPath(id string) string  { return filepath.Join(m.Dir(), id, "shm") }

func (m fakeMounts) List() ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ids []string
	for id := range m.mounts {
		ids = append(ids, id)
	}
	return ids, nil
}

func (m fakeMounts) Mounted(id string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.mounts[id]) > 0, nil
}

func (m fakeMounts) Admit(id string, _ uint32) error { return m.call(id, "mounts.admit", "", nil) }

func (m fakeMounts) mount(id, name string) (string, error) {
	path := filepath.Join(m.Dir(), id, name)
	return path, m.call(id, "mounts."+name, "", func() error {
		m.mounts[id] = append(m.mounts[id], name)
		return os.MkdirAll(path, 0o700)
	})
}

func (m fakeMounts) MountRoot(id string, o rootfs.Overlay) (string, error) {
	m.must(os.MkdirAll(o.Upper, 0o700))
	return m.mount(id, "root")
}

func (m fakeMounts) MountImage(id string, _ int, _ rootfs.ImageVolume) (string, error) {
	return m.mount(id, "image")
}

func (m fakeMounts) IDMapVolume(id string, _ int, _ rootfs.Volume) (string, error) {
	return m.mount(id, "idmap")
}

func (m fakeMounts) LockBinds(id string, binds []rootfs.Bind) ([]string, error) {
	paths := make([]string, len(binds))
	for i := range binds {
		paths[i] = filepath.Join(m.Dir(), id, "bind")
	}
	return paths, m.call(id, "mounts.lock", "", func() error { m.mounts[id] = append(m.mounts[id], "bind"); return nil })
}

func (m fakeMounts) Shm(id string, _ int64, _ rootfs.Owner, _ string) (string, error) {
	return m.mount(id, "shm")
}
func (fakeMounts) Own(string, rootfs.Owner) error { return nil }

func (fakeMounts) MakePlace(_, path string, _ rootfs.Owner) (string, error) { return path, nil }
func (fakeMounts) ReadFile(string, string, int64) ([]byte, error)           { return nil, errdefs.ErrNotFound }

func (m fakeMounts) Unmount(id string) error {
	if mounted, _ := m.Mounted(id); !mounted {
		return nil
	}
	return m.call(id, "mounts.unmount", "", func() error {
		delete(m.mounts, id)
		return os.RemoveAll(filepath.Join(m.Dir(), id))
	})
}

// Plugins.

type fakePlugins struct{ parts }

func (p fakePlugins) Pod(_ context.Context, event pod.SandboxEvent, rec *pod.SandboxRecord) error {
	name := map[pod.SandboxEvent]string{
		pod.PodRun: "pod", pod.PodUpdating: "updating", pod.PodUpdated: "updated", pod.PodStopped: "stopped", pod.PodRemoved: "removed",
	}[event]
	return p.call(rec.ID, "plugin."+name, "", nil)
}

func (p fakePlugins) Container(_ context.Context, event pod.ContainerEvent, _ *pod.SandboxRecord, c *pod.ContainerRecord) error {
	name := map[pod.ContainerEvent]string{
		pod.ContainerCreated: "created", pod.ContainerStarting: "starting", pod.ContainerStarted: "started",
		pod.ContainerUpdated: "updated", pod.ContainerStopped: "stopped", pod.ContainerRemoved: "removed",
	}[event]
	return p.call(c.ID, "plugin."+name, "", nil)
}

func (p fakePlugins) Adjust(_ context.Context, _ *pod.SandboxRecord, c *pod.ContainerRecord, _ *specs.Spec) (bool, error) {
	return false, p.call(c.ID, "plugin.adjust", "", nil)
}

func (p fakePlugins) Update(_ context.Context, _ *pod.SandboxRecord, c *pod.ContainerRecord, to *runtimeapi.LinuxContainerResources) (*runtimeapi.LinuxContainerResources, error) {
	return to, p.call(c.ID, "plugin.update", "", nil)
}

// Pinder.

type fakePinder struct{ parts }

func (p fakePinder) Create(ctx context.Context, r wire.Create) (created wire.Created, err error) {
	err = p.callWith(ctx, r.ID, "pinder.create", "", func() error {
		c := p.containers[r.ID]
		if c == nil {
			c = &container{phase: wire.PhaseCreated, exitFile: r.ExitFile, command: exec.Command("sleep", "1000")}
			if err := c.command.Start(); err != nil {
				return err
			}
			p.processes = append(p.processes, c.command.Process)
			c.process, err = proc.Find(c.command.Process.Pid)
			p.containers[r.ID] = c
		}
		created = wire.Created{Process: c.process}
		return err
	})
	return created, err
}

func (p fakePinder) Start(ctx context.Context, id string) error {
	return p.callWith(ctx, id, "pinder.start", "", func() error {
		c := p.containers[id]
		switch {
		case c == nil:
			return errdefs.ErrNotFound
		case c.exit != nil:
			return errdefs.ErrFailedPrecondition
		}
		c.phase = wire.PhaseRunning
		return nil
	})
}

func (p fakePinder) StopSignal(_ context.Context, id string, sig unix.Signal) error {
	ends := false
	err := p.call(id, "pinder.signal", unix.SignalName(sig), func() error {
		c := p.containers[id]
		if c == nil {
			return errdefs.ErrNotFound
		}
		c.signals++
		ends = !c.stubborn && c.signals == 1
		return nil
	})
	if ends {
		p.end(id, wire.Exit{Code: 128 + int(sig), Signal: int(sig)})
	}
	return err
}

func (p fakePinder) KillAll(_ context.Context, id string) error {
	err := p.call(id, "pinder.kill", "", func() error {
		if p.containers[id] == nil {
			return errdefs.ErrNotFound
		}
		return nil
	})
	if err == nil {
		p.end(id, wire.Exit{Code: 128 + int(unix.SIGKILL), Signal: int(unix.SIGKILL)})
	}
	return err
}

func (p fakePinder) Delete(_ context.Context, r wire.Delete) error {
	err := p.call(r.ID, "pinder.delete", "", nil)
	if err != nil {
		return err
	}
	p.end(r.ID, wire.Exit{Code: 128 + int(unix.SIGKILL), Signal: int(unix.SIGKILL)})
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.containers, r.ID)
	return nil
}

func (p fakePinder) Adopt(_ context.Context, r wire.Adopt) (wire.Created, error) {
	return wire.Created{Process: r.Process}, p.call(r.ID, "pinder.adopt", "", func() error {
		process, err := os.FindProcess(r.PID)
		p.containers[r.ID] = &container{
			phase: wire.PhaseRunning, process: r.Process, exitFile: r.ExitFile,
			command: &exec.Cmd{Process: process},
		}
		return err
	})
}

func (p fakePinder) Containers(context.Context) ([]wire.Container, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []wire.Container
	for id, c := range p.containers {
		all = append(all, wire.Container{ID: id, Process: c.process, Phase: c.phase, Exit: c.exit})
	}
	return all, nil
}

func (p fakePinder) Update(_ context.Context, id string, resources []byte, _ time.Duration) error {
	return p.call(id, "pinder.update", string(resources), nil)
}

func (p fakePinder) Checkpoint(_ context.Context, r wire.Checkpoint) error {
	return p.call(r.ID, "pinder.checkpoint", "", nil)
}

func (fakePinder) Exec(context.Context, wire.Exec) (*client.Execution, error) {
	return nil, errdefs.ErrNotImplemented
}

func (fakePinder) Attach(context.Context, wire.Attach) (*client.Attachment, error) {
	return nil, errdefs.ErrNotImplemented
}
func (fakePinder) Resize(context.Context, string, string, uint16, uint16) error { return nil }
func (p fakePinder) ReopenLog(_ context.Context, id string) error {
	return p.call(id, "pinder.reopenlog", "", nil)
}
func (fakePinder) Processes(context.Context) (int, int, error) { return 1, 2, nil }

// end ends a container's process, writes the exit file, and tells the daemon, if one runs.
func (w *world) end(id string, exit wire.Exit) {
	w.mu.Lock()
	c := w.containers[id]
	if c == nil || c.exit != nil {
		w.mu.Unlock()
		return
	}
	_ = c.command.Process.Kill()
	_, _ = c.command.Process.Wait()
	exit.ID, exit.At = id, time.Now().UnixNano()
	c.exit, c.phase = &exit, wire.PhaseExited
	if c.exitFile != "" {
		data, _ := json.Marshal(exit)
		if err := os.WriteFile(c.exitFile, data, 0o600); err != nil && !errors.Is(err, os.ErrNotExist) {
			w.t.Error(err)
		}
	}
	d := w.now
	w.mu.Unlock()
	if d != nil {
		d.ended(exit)
	}
}
