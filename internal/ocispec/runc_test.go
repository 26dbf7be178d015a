package ocispec

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/pin"
)

// look prints what a container sees of itself, one name and value per line.
const look = `
echo uid $(id -u)
echo groups $(id -G)
echo map $(cat /proc/self/uid_map)
echo hostname $(hostname)
echo env-hostname $HOSTNAME
echo bounding $(grep CapBnd /proc/self/status)
echo effective $(grep CapEff /proc/self/status)
echo seccomp $(grep Seccomp: /proc/self/status)
echo newprivs $(grep NoNewPrivs /proc/self/status)
echo nofile $(ulimit -Sn) $(ulimit -Hn)
echo oom $(cat /proc/self/oom_score_adj)
echo sys $(grep ' /sys ' /proc/self/mountinfo | grep -o ' sysfs .*' | cut -c 2-6)
echo pids $(ls -d /proc/[0-9]* | grep -c .)
touch /proc/sys/kernel/domainname 2>/dev/null && echo x > /proc/sys/kernel/domainname 2>/dev/null && echo procsys writable || echo procsys readonly
touch /new 2>/dev/null && echo root writable || echo root readonly
`

func TestRuncRunsAPlainContainer(t *testing.T) {
	b := newBench(t)
	got := lines(b.run(b.container(hostPod(), look)))
	expect(t, got, map[string]string{
		"uid": "0", "groups": "0", "seccomp": "Seccomp: 0", "newprivs": "NoNewPrivs: 0", "oom": "0",
		"env-hostname": "node", "bounding": "CapBnd: 00000000a80425fb", "procsys": "readonly", "root": "writable",
	})
	limit := min(1<<20, b.host.RlimitCeilings["RLIMIT_NOFILE"])
	expect(t, got, map[string]string{"nofile": fmt.Sprintf("%d %d", limit, limit)})
}

func TestRuncRunsAConfinedContainerInAPinnedUserNamespace(t *testing.T) {
	b := newBench(t)
	c := b.container(b.usernsPod(), look)
	c.Config.Linux = &runtimeapi.LinuxContainerConfig{
		Resources: &runtimeapi.LinuxContainerResources{OomScoreAdj: 500},
		SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
			RunAsUser:          &runtimeapi.Int64Value{Value: 1000},
			SupplementalGroups: []int64{65535},
			NoNewPrivs:         true,
			ReadonlyRootfs:     true,
			Seccomp:            &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
			ReadonlyPaths:      DefaultReadonlyPaths(),
			Capabilities:       &runtimeapi.Capability{DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"KILL"}},
		},
	}
	expect(t, lines(b.run(c)), map[string]string{
		"uid": "1000", "groups": "1000 50 65535", "map": "0 1000000 65536", "hostname": "web-0", "env-hostname": "web-0",
		"bounding": "CapBnd: 0000000000000020", "effective": "CapEff: 0000000000000000", "seccomp": "Seccomp: 2",
		"newprivs": "NoNewPrivs: 1", "oom": "500", "procsys": "readonly", "root": "readonly",
	})
}

func TestRuncRunsAPrivilegedContainerInAPinnedUserNamespaceWithEveryCapability(t *testing.T) {
	b := newBench(t)
	c := b.container(b.usernsPod(), look)
	c.Config.Linux = &runtimeapi.LinuxContainerConfig{
		SecurityContext: &runtimeapi.LinuxContainerSecurityContext{Privileged: true},
	}
	// Capabilities that the daemon lacks are included, because they apply only in the pod.
	expect(t, lines(b.run(c)), map[string]string{
		"uid": "0", "bounding": "CapBnd: 000001ffffffffff", "effective": "CapEff: 000001ffffffffff",
	})
}

func TestRuncGivesAPrivilegedContainerAllThatTheDaemonHas(t *testing.T) {
	b := newBench(t)
	c := b.container(hostPod(), look)
	c.Config.Linux = &runtimeapi.LinuxContainerConfig{
		SecurityContext: &runtimeapi.LinuxContainerSecurityContext{Privileged: true},
	}
	var mask uint64
	for number, name := range knownCapabilities {
		if slices.Contains(b.host.Capabilities, name) {
			mask |= 1 << number
		}
	}
	expect(t, lines(b.run(c)), map[string]string{"effective": fmt.Sprintf("CapEff: %016x", mask)})
}

func TestRuncMountsVolumesAndDevicesAsAskedFor(t *testing.T) {
	for name, pod := range map[string]func(*bench) Sandbox{
		"on the node": func(*bench) Sandbox { return hostPod() },
		"in a user namespace": func(b *bench) Sandbox {
			return b.usernsPod()
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			volume := filepath.Join(b.dir, "volume")
			b.must(os.Mkdir(volume, 0o777))
			b.must(os.Chmod(volume, 0o777))
			b.must(os.WriteFile(filepath.Join(volume, "run"), []byte("#!/bin/sh\n"), 0o755))
			c := b.container(pod(b), `
/data/run 2>/dev/null && echo data executable || echo data noexec
touch /data/file && echo data-write ok
touch /ro/file 2>/dev/null && echo ro writable || echo ro readonly
touch /rro/file 2>/dev/null && echo rro writable || echo rro readonly
touch /dev/termination-log && echo log ok
[ -c /dev/nought ] && echo device $(stat -c %t:%T /dev/nought)
echo x > /dev/nought && echo device-write ok
echo tty $(grep ' /dev/pts ' /proc/self/mountinfo | grep -o gid=[0-9]*)
`)
			c.Config.Mounts = []*runtimeapi.Mount{
				{ContainerPath: "/data", HostPath: volume, MountOptions: []string{"noexec"}},
				{ContainerPath: "/ro", HostPath: volume, Readonly: true},
				{ContainerPath: "/rro", HostPath: volume, Readonly: true, RecursiveReadOnly: true},
				{ContainerPath: "/dev/termination-log", HostPath: filepath.Join(volume, "log")},
			}
			b.must(os.WriteFile(filepath.Join(volume, "log"), nil, 0o666))
			b.must(os.Chmod(filepath.Join(volume, "log"), 0o666))
			for _, m := range c.Config.Mounts {
				c.MountSources = append(c.MountSources, m.HostPath)
			}
			c.Devices = []Device{{HostPath: "/dev/zero", Path: "/dev/nought", Type: "c", Major: 1, Minor: 5, FileMode: 0o666}}
			expect(t, lines(b.run(c)), map[string]string{
				"data": "noexec", "data-write": "ok", "ro": "readonly", "rro": "readonly", "log": "ok",
				"device": "1:5", "device-write": "ok",
			})
		})
	}
}

func TestRuncMountsTheNodesSysReadOnlyForAUserNamespaceOnTheNodesNetwork(t *testing.T) {
	b := newBench(t)
	s := b.usernsPod()
	s.Config.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_NODE
	b.must(ValidateSandbox(b.host, s.Config))
	s.Namespaces.Net = ""
	got := lines(b.run(b.container(s, look+`
echo interfaces $(ls /sys/class/net)
mount -o remount,rw /sys 2>/dev/null && echo remount done || echo remount refused
`)))
	expect(t, got, map[string]string{"map": "0 1000000 65536", "remount": "refused"})
	if !strings.Contains(got["interfaces"], "lo") {
		t.Errorf("no interfaces in /sys: %q", got["interfaces"])
	}
}

func TestRuncSeesTheSysctlsAsThePodMeantThem(t *testing.T) {
	b := newBench(t)
	s := b.usernsPod()
	s.Config.Linux.Sysctls = map[string]string{
		"net.ipv4.ping_group_range": "5 1000", "kernel.shm_rmid_forced": "1", "fs.mqueue.msg_max": "11",
	}
	b.must(ValidateSandbox(b.host, s.Config))
	paths := map[pin.Kind]string{pin.Net: s.Namespaces.Net, pin.IPC: s.Namespaces.IPC}
	writer := map[pin.Kind]int{pin.Net: 0, pin.IPC: firstID}
	for _, sysctl := range Sysctls(s.Config) {
		ns, err := pin.Open(paths[sysctl.Kind])
		b.must(err)
		b.must(ns.Do(func() error {
			return asUser(writer[sysctl.Kind], func() error { return os.WriteFile(sysctl.Path(), []byte(sysctl.Value), 0o644) })
		}))
		b.must(ns.Close())
	}
	got := lines(b.run(b.container(s, `
echo ping $(cat /proc/sys/net/ipv4/ping_group_range)
echo ports $(cat /proc/sys/net/ipv4/ip_unprivileged_port_start)
echo shm $(cat /proc/sys/kernel/shm_rmid_forced)
echo mqueue $(cat /proc/sys/fs/mqueue/msg_max)
`)))
	expect(t, got, map[string]string{"ping": "5 1000", "ports": "0", "shm": "1", "mqueue": "11"})
}

// asUser calls fn with another effective uid, that of the calling thread only.
func asUser(uid int, fn func() error) error {
	const keep = ^uintptr(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(uid), keep); errno != 0 {
		return errno
	}
	err := fn()
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, 0, keep); errno != 0 {
		return errors.Join(err, errno)
	}
	return err
}

func TestRuncStartsTheInitOfAPodAndContainersJoinIt(t *testing.T) {
	b := newBench(t)
	s := b.usernsPod()
	s.Config.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
	s.ID = fmt.Sprintf("%032x", os.Getpid()+1<<30)
	pinder := filepath.Join(b.dir, "pinder")
	build := exec.Command("go", "build", "-o", pinder, "./testdata/init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the stand-in for pinder: %v\n%s", err, out)
	}
	root := filepath.Join(b.dir, "init")
	b.must(os.MkdirAll(filepath.Join(root, "proc"), 0o755))
	b.must(os.MkdirAll(filepath.Join(root, "dev"), 0o755))
	b.must(os.WriteFile(filepath.Join(root, "pinder"), nil, 0o755))
	init := Init(b.host, s, InitFiles{Rootfs: root, Pinder: pinder})
	pidFile := filepath.Join(b.dir, "pid")
	create := b.command("run", "--detach", "--pid-file", pidFile, "--bundle", b.write(s.ID, init), s.ID)
	// A file: the container inherits it. The end of a pipe would come only when the container ends.
	log, err := os.Create(filepath.Join(b.dir, "log"))
	b.must(err)
	defer log.Close()
	create.Stdout, create.Stderr = log, log
	if err := create.Run(); err != nil {
		text, _ := os.ReadFile(log.Name())
		t.Fatalf("runc run: %v\n%s", err, text)
	}
	defer func() {
		if out, err := b.command("delete", "--force", s.ID).CombinedOutput(); err != nil {
			t.Errorf("runc delete: %v\n%s", err, out)
		}
	}()
	pid, err := os.ReadFile(pidFile)
	b.must(err)
	s.Namespaces.PID = "/proc/" + strings.TrimSpace(string(pid)) + "/ns/pid"
	got := lines(b.run(b.container(s, `
echo init $(cat /proc/1/cmdline | tr '\0' ' ')
echo capabilities $(grep CapBnd /proc/1/status)
echo shell $([ $$ -gt 1 ] && echo another)
`)))
	expect(t, got, map[string]string{"init": "/pinder init", "capabilities": "CapBnd: 0000000000000000", "shell": "another"})
}

func TestRuncExecsAProcessWithTheContainersOwnRights(t *testing.T) {
	b := newBench(t)
	c := b.container(b.usernsPod(), "while true; do sleep 1; done")
	c.Config.Linux = &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
		RunAsUser: &runtimeapi.Int64Value{Value: 1000}, NoNewPrivs: true,
		Seccomp: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
	}}
	c.Config.Envs = []*runtimeapi.KeyValue{{Key: "COLOUR", Value: []byte("blue")}}
	s, err := Build(b.host, c)
	b.must(err)
	log, err := os.Create(filepath.Join(b.dir, "log"))
	b.must(err)
	defer log.Close()
	run := b.command("run", "--detach", "--bundle", b.write(c.ID, s), c.ID)
	run.Stdout, run.Stderr = log, log
	if err := run.Run(); err != nil {
		text, _ := os.ReadFile(log.Name())
		t.Fatalf("runc run: %v\n%s", err, text)
	}
	defer func() {
		if out, err := b.command("delete", "--force", c.ID).CombinedOutput(); err != nil {
			t.Errorf("runc delete: %v\n%s", err, out)
		}
	}()
	process, err := Exec(s, ExecOptions{Cmd: []string{"sh", "-c", look + "echo colour $COLOUR"}})
	b.must(err)
	data, err := json.Marshal(process)
	b.must(err)
	file := filepath.Join(b.dir, "process.json")
	b.must(os.WriteFile(file, data, 0o600))
	out, err := b.command("exec", "--process", file, c.ID).CombinedOutput()
	if err != nil {
		t.Fatalf("runc exec: %v\n%s", err, out)
	}
	expect(t, lines(string(out)), map[string]string{
		"uid": "1000", "groups": "1000 50", "newprivs": "NoNewPrivs: 1", "seccomp": "Seccomp: 2", "colour": "blue", "hostname": "web-0",
	})
}
