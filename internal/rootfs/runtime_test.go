package rootfs

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// runcPath finds the runtime as all tests of the project do.
func runcPath(t *testing.T) string {
	t.Helper()
	if p := os.Getenv("PINFOLD_RUNC"); p != "" {
		return p
	}
	if p, err := exec.LookPath("runc"); err == nil {
		return p
	}
	p, err := filepath.Abs("../../build/tools/runc")
	must(t, err)
	if _, err := os.Stat(p); err != nil {
		t.Fatal("no runc in $PINFOLD_RUNC, $PATH or build/tools")
	}
	return p
}

// busyboxLayer is an image's only layer.
func busyboxLayer(t *testing.T) string {
	t.Helper()
	layer := filepath.Join(passableTempDir(t), "fs")
	for _, d := range []string{"bin", "proc", "dev", "data", "tmp"} {
		must(t, os.MkdirAll(filepath.Join(layer, d), 0o755))
	}
	text, err := os.ReadFile(busybox)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(layer, "bin/busybox"), text, 0o755))
	return layer
}

func containerSpec(root, script string, mapped bool, binds map[string]string) *specs.Spec {
	s := &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: root},
		Process: &specs.Process{Args: []string{"/bin/busybox", "sh", "-ec", script}, Cwd: "/", NoNewPrivileges: true},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
		},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.NetworkNamespace},
		}},
	}
	for source, target := range binds {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: target, Type: "bind", Source: source, Options: []string{"bind", "rprivate"}})
	}
	if mapped {
		ids := []specs.LinuxIDMapping{{HostID: testBase, Size: testSize}}
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
	}
	return s
}

// runContainer runs a container of real runc to its end and returns its output.
func runContainer(t *testing.T, spec *specs.Spec) string {
	t.Helper()
	bundle := passableTempDir(t)
	text, err := json.Marshal(spec)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(bundle, "config.json"), text, 0o644))
	id := fmt.Sprintf("pinfold-rootfs-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	root := passableTempDir(t)
	defer func() { _ = exec.Command(runcPath(t), "--root", root, "delete", "--force", id).Run() }()
	out, err := exec.CommandContext(t.Context(), runcPath(t), "--root", root, "run", "--bundle", bundle, id).CombinedOutput()
	if err != nil {
		t.Fatalf("runc run: %v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestRuncStartsFromTheRootFileSystem(t *testing.T) {
	for _, mapped := range []bool{false, true} {
		t.Run(fmt.Sprintf("user namespace %v", mapped), func(t *testing.T) {
			a := newArea(t)
			held := newUserNS(t)
			var ns UserNS
			var owner uint32
			if mapped {
				ns, owner = held, testBase
				must(t, a.Admit("c1", owner))
			}
			o := overlayOf(t, []string{t.TempDir(), busyboxLayer(t)}, ns)
			root := mountRoot(t, a, "c1", o)
			shm, err := a.Shm("pod", 0, Owner{owner, owner}, "")
			must(t, err)
			source := t.TempDir()
			write(t, source+"/file", "on the host")
			volume := source
			if mapped {
				volume, err = a.IDMapVolume("c1", 0, Volume{Source: source, UserNS: ns})
				must(t, err)
			}
			binds := map[string]string{volume: "/data", shm: "/dev/shm"}
			got := runContainer(t, containerSpec(root, `
				/bin/busybox stat -c %u / /bin/busybox /data/file /dev/shm
				/bin/busybox cat /data/file; echo
				echo made > /data/made; echo made > /made; echo made > /dev/shm/made
				/bin/busybox grep -c pinfold /proc/self/mountinfo`, mapped, binds))
			// The one mount with our source is the root: the area was not copied in.
			if want := "0\n0\n0\n0\non the host\n1"; got != want {
				t.Errorf("container says %q, want %q", got, want)
			}
			if got := ownerAt(t, source+"/made"); got != [2]uint32{0, 0} {
				t.Errorf("the volume's new file belongs to %v", got)
			}
			for _, f := range []string{o.Upper + "/made", shm + "/made"} {
				if got := ownerAt(t, f); got != [2]uint32{owner, owner} {
					t.Errorf("%s belongs to %v", f, got)
				}
			}
		})
	}
}
