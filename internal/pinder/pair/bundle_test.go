package pair

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

type tweak func(spec map[string]any, r *wire.Create)

func withTTY(spec map[string]any, r *wire.Create) {
	spec["process"].(map[string]any)["terminal"] = true
	r.TTY = true
}

func withMemory(limit int64) tweak {
	return func(spec map[string]any, _ *wire.Create) {
		spec["linux"].(map[string]any)["resources"] = map[string]any{"memory": map[string]any{"limit": limit, "swap": limit}}
	}
}

func withUserns(spec map[string]any, _ *wire.Create) {
	linux := spec["linux"].(map[string]any)
	linux["namespaces"] = append(linux["namespaces"].([]map[string]any), map[string]any{"type": "user"})
	m := []map[string]any{{"containerID": 0, "hostID": 100000, "size": 65536}}
	linux["uidMappings"], linux["gidMappings"] = m, m
}

func withHostPID(spec map[string]any, _ *wire.Create) {
	linux := spec["linux"].(map[string]any)
	linux["namespaces"] = []map[string]any{{"type": "mount"}, {"type": "ipc"}, {"type": "uts"}}
}

func process(args ...string) map[string]any {
	return map[string]any{
		"args": args, "cwd": "/", "env": []string{"PATH=/bin"},
		"user": map[string]any{"uid": 0, "gid": 0},
	}
}

// request makes a bundle for a container that runs a shell script.
func (n *node) request(id, script string, tweaks ...tweak) wire.Create {
	n.t.Helper()
	bundle := filepath.Join(n.dir, "bundles", id)
	if err := os.MkdirAll(bundle, 0o755); err != nil {
		n.t.Fatal(err)
	}
	spec := map[string]any{
		"ociVersion": "1.1.0",
		"process":    process("/bin/sh", "-c", script),
		"root":       map[string]any{"path": rootfs, "readonly": true},
		"mounts": []map[string]any{
			{"destination": "/proc", "type": "proc", "source": "proc"},
			{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"mode=755", "size=65536k"}},
			{"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": []string{"newinstance", "ptmxmode=0666"}},
			{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
		},
		"linux": map[string]any{
			"cgroupsPath": n.cgroup(id),
			"namespaces":  []map[string]any{{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}},
		},
	}
	r := wire.Create{
		ID: id, Bundle: bundle, Runtime: wire.Runtime{Binary: runcBinary, Root: filepath.Join(n.dir, "runc")},
		LogPath:  filepath.Join(n.dir, id+".log"),
		ExitFile: filepath.Join(n.dir, id+".exit"),
	}
	for _, f := range tweaks {
		f(spec, &r)
	}
	b, err := json.Marshal(spec)
	if err == nil {
		err = os.WriteFile(filepath.Join(bundle, "config.json"), b, 0o600)
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}
