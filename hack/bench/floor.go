package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/containernetworking/cni/libcni"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/pin"
)

// floor is the same work without a daemon: namespaces, the CNI plugins, an overlay, and the OCI runtime's create and
// start; then kill, delete, and the plugins' DEL.
type floor struct {
	t       tools
	dir     string
	layer   string
	conf    *libcni.NetworkConfigList
	plugins *libcni.CNIConfig
	number  atomic.Int64
}

func newFloor(t tools, dir string) (*floor, error) {
	f := &floor{t: t, dir: dir, layer: filepath.Join(dir, "layer")}
	conf, err := network(dir, "pfb40", 40)
	if err != nil {
		return nil, err
	}
	if f.conf, err = libcni.ConfListFromFile(filepath.Join(conf, "10-bench.conflist")); err != nil {
		return nil, err
	}
	f.plugins = libcni.NewCNIConfigWithCacheDir([]string{t.plugins}, filepath.Join(dir, "cache"), nil)
	for _, sub := range []string{"bin", "proc", "sys", "dev"} {
		if err := os.MkdirAll(filepath.Join(f.layer, sub), 0o755); err != nil {
			return nil, err
		}
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return nil, err
	}
	return f, os.WriteFile(f.layer+"/bin/busybox", busybox, 0o755)
}

// floorPod is one pod of the floor.
type floorPod struct {
	id, dir string
	ns      map[string]string // paths by kind
	rt      *libcni.RuntimeConf
}

func (f *floor) make(ctx context.Context, userns bool) (*floorPod, error) {
	n := f.number.Add(1)
	p := &floorPod{id: fmt.Sprint("floor", n), ns: map[string]string{}}
	p.dir = filepath.Join(f.dir, p.id)
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return nil, err
	}
	var mappings *pin.Mappings
	if userns {
		lines := []pin.IDMap{{ContainerID: 0, HostID: uint32(65536 * (5000 + n)), Length: 65536}}
		mappings = &pin.Mappings{UIDs: lines, GIDs: lines}
	}
	set, err := pin.Create(mappings, pin.Net|pin.IPC|pin.UTS)
	if err != nil {
		return nil, err
	}
	defer set.Close()
	for kind, ns := range map[string]*pin.Namespace{"user": set.User, "network": set.Net, "ipc": set.IPC, "uts": set.UTS} {
		if ns == nil {
			continue
		}
		p.ns[kind] = filepath.Join(p.dir, kind)
		if err := ns.Pin(p.ns[kind]); err != nil {
			return nil, err
		}
	}
	p.rt = &libcni.RuntimeConf{ContainerID: p.id, NetNS: p.ns["network"], IfName: "eth0"}
	if _, err := f.plugins.AddNetworkList(ctx, f.conf, p.rt); err != nil {
		return nil, err
	}
	return p, f.container(p)
}

// container mounts the overlay and has the runtime create and start the container. The runtime reads the ID mappings from
// the namespace.
func (f *floor) container(p *floorPod) error {
	root := filepath.Join(p.dir, "rootfs")
	for _, dir := range []string{root, p.dir + "/upper", p.dir + "/work"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", f.layer, p.dir, p.dir)
	if err := unix.Mount("overlay", root, "overlay", 0, options); err != nil {
		return fmt.Errorf("overlay: %w", err)
	}
	spaces := []map[string]string{{"type": "mount"}, {"type": "pid"}}
	for kind, path := range p.ns {
		spaces = append(spaces, map[string]string{"type": kind, "path": path})
	}
	spec := map[string]any{
		"ociVersion": "1.2.0", "root": map[string]any{"path": root},
		"process": map[string]any{"args": []string{"/bin/busybox", "sleep", "100000"}, "cwd": "/", "user": map[string]int{"uid": 0, "gid": 0}},
		"mounts": []map[string]any{
			{"destination": "/proc", "type": "proc", "source": "proc"},
			{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"mode=755"}},
		},
		"linux": map[string]any{"namespaces": spaces, "cgroupsPath": cgroupParent + "/" + p.id},
	}
	data, err := json.Marshal(spec)
	if err == nil {
		err = os.WriteFile(p.dir+"/config.json", data, 0o600)
	}
	if err != nil {
		return err
	}
	for _, args := range [][]string{{"create", "--bundle", p.dir, p.id}, {"start", p.id}} {
		if err := f.runc(args...); err != nil {
			return err
		}
	}
	return nil
}

func (f *floor) runc(args ...string) error {
	log := filepath.Join(f.dir, "runc.log")
	command := exec.Command(f.t.runc, append([]string{"--root", f.dir + "/runc", "--log", log}, args...)...)
	if err := command.Run(); err != nil {
		text, _ := os.ReadFile(log)
		return fmt.Errorf("runc %s: %w: %s", args[0], err, text)
	}
	return nil
}

func (f *floor) remove(ctx context.Context, p *floorPod) error {
	if err := f.runc("delete", "--force", p.id); err != nil {
		return err
	}
	if err := f.plugins.DelNetworkList(ctx, f.conf, p.rt); err != nil {
		return err
	}
	if err := unix.Unmount(p.dir+"/rootfs", 0); err != nil {
		return err
	}
	for _, path := range p.ns {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			return err
		}
	}
	return os.RemoveAll(p.dir)
}

// measure measures n pods, so many at a time.
func (f *floor) measure(ctx context.Context, k kind, n, parallel int, r *result) error {
	m := r.of(floorName, fmt.Sprintf("%s, %d at a time", k, parallel))
	pods := make([]*floorPod, n)
	cpu, began := machineCPU(), time.Now()
	if err := together(n, parallel, func(i int) error {
		return timed(m, "pod ready", func() (err error) {
			pods[i], err = f.make(ctx, k.userns)
			return err
		})
	}); err != nil {
		return fmt.Errorf("the floor: %w", err)
	}
	m.value("pods a second", float64(n)/time.Since(began).Seconds())
	m.value("CPU ms a pod, start", (machineCPU()-cpu)/float64(n))
	cpu = machineCPU()
	err := together(n, parallel, func(i int) error {
		return timed(m, "pod gone", func() error { return f.remove(ctx, pods[i]) })
	})
	m.value("CPU ms a pod, end", (machineCPU()-cpu)/float64(n))
	return err
}
