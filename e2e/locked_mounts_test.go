package e2e

import (
	"archive/tar"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/testimage"
)

// thinImage is an image of one layer.
const thinImage = "docker.io/library/thin:test"

// eachKindOfPrivilegedPod is eachKindOfPod with pods that may have privileged containers.
func eachKindOfPrivilegedPod(t *testing.T, n *node, test func(pod string, userns bool), options ...string) {
	for _, own := range [][]string{nil, {"userns"}} {
		t.Log("pod", own)
		config := n.podConfig("p"+strings.Join(own, ""), append(own, options...)...)
		config.Linux.SecurityContext.Privileged = true
		test(n.runPodOf(config), len(own) > 0)
	}
}

// imageAt is a mount of an image, or of a part of it.
func imageAt(name, at, sub string) *runtimeapi.Mount {
	m := imageMount(name, sub)
	m.ContainerPath = at
	return m
}

func privileged(c *runtimeapi.ContainerConfig) *runtimeapi.ContainerConfig {
	securityContext(c).Privileged = true
	return c
}

// lift is a script that tries all that a container's root can do to lift what restricts a mount.
const lift = `lift() {
 mount -o remount,bind,rw,dev,suid,exec "$1"; mount -o remount,rw "$1"; mount -o remount,rw,dev "$1"
 mkdir -p /tmp/lift; touch /tmp/lift-file; to=/tmp/lift; [ -d "$1" ] || to=/tmp/lift-file
 mount --rbind "$1" $to && mount -o remount,bind,rw,dev $to
 unshare -m sh -c "mount -o remount,bind,rw,dev $1; mount --bind $1 $to; mount -o remount,bind,rw,dev $to; $2"
} >/dev/null 2>&1
`

func TestDeviceNodesThatAPodInAUserNamespaceFindsOpenNothing(t *testing.T) {
	t.Parallel()
	n := started(t)
	// /dev/zero: every container may open it, where nothing else forbids.
	nodes := []testimage.File{
		{Path: "zero", Mode: 0o666, Type: tar.TypeChar, Major: 1, Minor: 5},
		{Path: "home/zero", Mode: 0o666, UID: 1000, GID: 1000, Type: tar.TypeChar, Major: 1, Minor: 5},
	}
	n.load(testimage.Options{Name: modelImage, Files: nodes, Config: testimage.Config{Volumes: map[string]struct{}{"/home": {}}}})
	n.load(testimage.Options{Name: thinImage, Files: nodes[:1], OnlyFiles: true})
	for _, dir := range []string{"volumes/v", "volumes/tmpfs"} {
		n.check(os.Mkdir(n.path(dir), 0o755))
	}
	n.check(unix.Mount("none", n.path("volumes/tmpfs"), "tmpfs", 0, "mode=755"))
	t.Cleanup(func() { _ = unix.Unmount(n.path("volumes/tmpfs"), unix.MNT_DETACH) })
	n.before = n.hostState()
	for _, file := range []string{"volumes/v/zero", "volumes/tmpfs/zero"} {
		n.check(unix.Mknod(n.path(file), unix.S_IFCHR, int(unix.Mkdev(1, 5))))
		n.check(os.Chmod(n.path(file), 0o666))
	}
	places := []string{"/zero", "/home/zero", "/thin/zero", "/many/zero", "/many-sub/zero", "/thin-sub", "/v/zero", "/v-unmapped/zero", "/v-file", "/tmpfs/zero"}
	eachKindOfPrivilegedPod(t, n, func(pod string, userns bool) {
		volume := func(name, at string) *runtimeapi.Mount {
			return &runtimeapi.Mount{HostPath: n.path("volumes", name), ContainerPath: at}
		}
		for _, readOnly := range []bool{false, true} {
			config := privileged(sleeper(fmt.Sprint("c", readOnly),
				imageAt(thinImage, "/thin", ""), imageAt(modelImage, "/many", ""), imageAt(modelImage, "/many-sub", "home"), imageAt(thinImage, "/thin-sub", "zero"),
				idmapped(userns, volume("v", "/v")), volume("v", "/v-unmapped"), idmapped(userns, volume("v/zero", "/v-file")), idmapped(userns, volume("tmpfs", "/tmpfs"))))
			config.Image.Image = modelImage
			securityContext(config).ReadonlyRootfs = readOnly
			config.Devices = []*runtimeapi.Device{{HostPath: "/dev/zero", ContainerPath: "/dev/given", Permissions: "rw"}}
			c := n.runContainerOf(pod, config)
			// Each place is opened for reading and for writing, before and after all attempts to lift what forbids it.
			script := lift + "for p in " + strings.Join(places, " ") + "; do for t in before after; do " +
				`if [ $t = after ]; then lift / true; lift $p true; lift ${p%/*} true; fi; ` +
				`{ head -c1 $p >/dev/null && echo $p read; (: >$p) && echo $p written; } 2>/dev/null; done; done; true`
			want := ""
			if !userns {
				for _, place := range places {
					want += strings.Repeat(place+" read\n"+place+" written\n", 2)
				}
			}
			n.says(c, script, strings.TrimSpace(want))
			n.says(c, "for d in null zero full random urandom tty given; do test -c /dev/$d || echo no $d; { : </dev/$d; } 2>&1 | grep -v 'No such device or address'; done; true", "")
			n.says(c, "head -c2 /dev/given | wc -c; echo x >/dev/null && echo x >/dev/given && echo ok", "2\nok")
		}
	})
}

func TestWhatIsMountedReadOnlyIsNotMadeWritableFromInside(t *testing.T) {
	t.Parallel()
	n := started(t)
	text := []testimage.File{{Path: "text", Mode: 0o666, Content: "of the image\n"}, {Path: "dir/text", Mode: 0o666, Content: "of the image\n"}}
	n.load(testimage.Options{Name: thinImage, Files: text, OnlyFiles: true})
	n.load(testimage.Options{Name: modelImage, Files: append(text, testimage.File{Path: "home/text", Mode: 0o666, Content: "of the image\n"})[:1]})
	n.check(os.MkdirAll(n.path("volumes/v/sub"), 0o777))
	n.check(unix.Mount("none", n.path("volumes/v/sub"), "tmpfs", 0, "mode=777"))
	t.Cleanup(func() { _ = unix.Unmount(n.path("volumes/v/sub"), unix.MNT_DETACH) })
	n.before = n.hostState()
	for _, file := range []string{"volumes/v/text", "volumes/v/sub/text"} {
		n.write(file, "of the host\n")
		n.check(os.Chmod(n.path(file), 0o666))
	}
	volume := func(name, at string, recursive bool) *runtimeapi.Mount {
		return &runtimeapi.Mount{HostPath: n.path("volumes", name), ContainerPath: at, Readonly: true, RecursiveReadOnly: recursive}
	}
	eachKindOfPrivilegedPod(t, n, func(pod string, userns bool) {
		mounts := []*runtimeapi.Mount{
			imageAt(thinImage, "/thin", ""), imageAt(thinImage, "/thin-sub", "dir"), imageAt(thinImage, "/thin-file", "text"), imageAt(modelImage, "/many", ""),
		}
		files := []string{"/thin/text", "/thin-sub/text", "/thin-file", "/many/text"}
		if userns { // in the node's user namespace CAP_SYS_ADMIN may change the mounts of the node's files
			mounts = append(mounts, idmapped(true, volume("v", "/mapped", false)), volume("v", "/plain", false), idmapped(true, volume("v", "/all", true)),
				volume("v", "/all-plain", true), idmapped(true, volume("v/text", "/file", false)))
			files = append(files, "/mapped/text", "/plain/text", "/all/text", "/all/sub/text", "/all-plain/sub/text", "/file")
		}
		ways := []*runtimeapi.ContainerConfig{privileged(sleeper("privileged", mounts...)), sleeper("admin", mounts...)}
		securityContext(ways[1]).Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"SYS_ADMIN"}}
		securityContext(ways[1]).Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
		for _, config := range ways {
			c := n.runContainerOf(pod, config)
			n.inside(c, lift+"for f in "+strings.Join(files, " ")+`; do lift $f "echo poison >>$f"; lift ${f%/*} "echo poison >>$f"; chmod 777 $f; done`)
			for _, file := range files {
				n.refuses(c, "echo poison >>"+file, "Read-only file system")
			}
			n.says(c, "cat "+strings.Join(files, " ")+" | sort -u | grep -c poison; true", "0")
		}
	})
	c := n.runContainerOf(n.runPodOf(n.podConfig("after")), sleeper("c", imageAt(thinImage, "/thin", "")))
	n.says(c, "cat /thin/text; stat -c %a /thin/text", "of the image\n666")
	for _, file := range []string{"volumes/v/text", "volumes/v/sub/text"} {
		if text, err := os.ReadFile(n.path(file)); err != nil || string(text) != "of the host\n" {
			t.Errorf("%s: %q, %v", file, text, err)
		}
	}
}

func TestOtherRestrictionsOfAVolumeAreNotLiftedFromInside(t *testing.T) {
	t.Parallel()
	n := started(t)
	n.check(os.Mkdir(n.path("volumes/v"), 0o755))
	n.write("volumes/v/script", "#!/bin/sh\necho ran\n")
	n.check(os.Chmod(n.path("volumes/v/script"), 0o755))
	config := n.podConfig("p", "userns")
	config.Linux.SecurityContext.Privileged = true
	mount := idmapped(true, &runtimeapi.Mount{
		HostPath: n.path("volumes/v"), ContainerPath: "/v", MountOptions: []string{"noexec", "nosuid", "nodev", "noatime", "nodiratime"},
	})
	c := n.runContainerOf(n.runPodOf(config), privileged(sleeper("c", mount)))
	n.says(c, lift+"lift /v true; mount -o remount,bind,strictatime /v 2>/dev/null; "+
		"grep ' /v ' /proc/self/mountinfo | cut -d' ' -f6 | tr , '\n' | grep -cE '^(noexec|nosuid|nodev|noatime)$'", "4")
	n.refuses(c, "/v/script", "Permission denied")
	for _, at := range []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/shm"} {
		n.says(c, lift+"lift "+at+" true; grep ' "+at+" ' /proc/self/mountinfo | cut -d' ' -f6 | tr , '\n' | grep -cE '^(noexec|nosuid|nodev)$'", "3")
	}
}

// A container that shares its pod's PID namespace sees the mount namespace of PID 1, which is the node's program.
func TestTheProgramOfAPodsPIDOneIsOutOfReach(t *testing.T) {
	t.Parallel()
	n := started(t)
	sum := func() string {
		out, err := exec.Command("sh", "-c", "cd "+n.path("root/init")+" && stat -c '%a %u %s' pinder && sha256sum pinder && stat -c '%a %u' "+binaries.pinder).CombinedOutput()
		n.check(err)
		return string(out)
	}
	var before string
	eachKindOfPrivilegedPod(t, n, func(pod string, userns bool) {
		if before == "" {
			before = sum()
		}
		c := n.runContainerOf(pod, privileged(sleeper("c")))
		n.says(c, "cat /proc/1/comm", "pinder")
		attack := lift + "lift /pinder 'echo x >>/pinder; chmod 4777 /pinder; chown 1:1 /pinder; rm -f /pinder'; for f in /pinder /proc/1/exe; do echo x >>$f; chmod 4777 $f; chown 1:1 $f; done"
		n.inside(c, "cp /bin/busybox /proc/1/root/dev/busybox 2>/dev/null; nsenter -t 1 -m /dev/busybox sh -c "+quoted(attack))
		n.inside(c, "for f in /proc/1/exe /proc/1/root/pinder; do echo x >>$f; chmod 4777 $f; chown 1:1 $f; done")
		if after := sum(); after != before {
			t.Errorf("the program was %s and is %s", before, after)
		}
	}, "shared-pid")
}

func quoted(script string) string { return "'" + strings.ReplaceAll(script, "'", `'\''`) + "'" }

// A host path of type CharDevice is a mount of a device node.
func TestAMountedDeviceOfTheNodeOpensAndOneThatAVolumeHoldsDoesNot(t *testing.T) {
	t.Parallel()
	n := started(t)
	n.check(unix.Mknod(n.path("volumes/node"), unix.S_IFCHR, int(unix.Mkdev(1, 5))))
	n.check(os.Chmod(n.path("volumes/node"), 0o666))
	eachKindOfPod(t, n, func(pod string, userns bool) {
		c := n.runContainerOf(pod, sleeper("c", &runtimeapi.Mount{HostPath: "/dev/zero", ContainerPath: "/of-the-node"},
			&runtimeapi.Mount{HostPath: n.path("volumes/node"), ContainerPath: "/made-by-others"}))
		n.says(c, "exec 3<>/of-the-node && echo opened", "opened")
		if userns {
			n.refuses(c, "exec 3<>/made-by-others", "Permission denied")
		} else {
			n.says(c, "exec 3<>/made-by-others && echo opened", "opened")
		}
	})
}
