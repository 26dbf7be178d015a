package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/testimage"
)

// modelImage is an image that is mounted as a volume.
const modelImage = "docker.io/library/model:test"

// load gives the node an image.
func (n *node) load(options testimage.Options) (id string) {
	n.t.Helper()
	var archive bytes.Buffer
	n.check(testimage.Write(&archive, options))
	load := exec.Command(binaries.pinfold, "--socket", n.socket(), "image", "load", "-")
	load.Stdin = &archive
	if out, err := load.CombinedOutput(); err != nil {
		n.t.Fatalf("load image: %v: %s", err, out)
	}
	resp, err := n.images.ImageStatus(n.ctx(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: options.Name}})
	n.check(err)
	return resp.GetImage().GetId()
}

// inside runs a shell script in a container and returns its output, with the exit code if that is not 0.
func (n *node) inside(container, script string) string {
	n.t.Helper()
	resp, err := n.runtime.ExecSync(n.ctx(), &runtimeapi.ExecSyncRequest{ContainerId: container, Cmd: []string{"sh", "-c", script}})
	n.check(err)
	out := strings.TrimSpace(string(resp.Stdout) + string(resp.Stderr))
	if resp.ExitCode != 0 {
		out += fmt.Sprintf(" (exit %d)", resp.ExitCode)
	}
	return out
}

// says runs a script in a container and compares its output.
func (n *node) says(container, script, want string) {
	n.t.Helper()
	if got := n.inside(container, script); got != want {
		n.t.Errorf("%s:\n  got  %q\n  want %q", script, got, want)
	}
}

// refuses runs a script in a container that has to fail with a text.
func (n *node) refuses(container, script, text string) {
	n.t.Helper()
	if got := n.inside(container, script); !strings.Contains(got, text) || !strings.Contains(got, "(exit ") {
		n.t.Errorf("%s: %q, want a failure: %s", script, got, text)
	}
}

// eachKindOfPod runs the test with a pod in the node's user namespace and one in its own.
func eachKindOfPod(t *testing.T, n *node, test func(pod string, userns bool)) {
	for _, options := range [][]string{nil, {"userns"}} {
		t.Log("pod", options)
		test(n.runPodOf(n.podConfig("p"+strings.Join(options, ""), options...)), len(options) > 0)
	}
}

// sleeper is a container that waits, with these mounts.
func sleeper(name string, mounts ...*runtimeapi.Mount) *runtimeapi.ContainerConfig {
	c := containerConfig(name, "sleep", "1000000")
	c.Mounts = mounts
	return c
}

// idmapped gives a mount the ID mappings of the tests' pods with user namespaces.
func idmapped(userns bool, m *runtimeapi.Mount) *runtimeapi.Mount {
	if userns {
		maps := []*runtimeapi.IDMapping{{HostId: usernsBase, ContainerId: 0, Length: 65536}}
		m.UidMappings, m.GidMappings = maps, maps
	}
	return m
}

func (n *node) tryMount(pod string, mounts ...*runtimeapi.Mount) error {
	config := sleeper("refused", mounts...)
	resp, err := n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config})
	if err == nil {
		_, _ = n.runtime.RemoveContainer(n.ctx(), &runtimeapi.RemoveContainerRequest{ContainerId: resp.ContainerId})
	}
	return err
}

// refusesMounts checks that a container with these mounts is refused with a code and a text.
func (n *node) refusesMounts(pod string, code codes.Code, text string, mounts ...*runtimeapi.Mount) {
	n.t.Helper()
	n.isRefusal(n.tryMount(pod, mounts...), code, text)
}

func (n *node) isRefusal(err error, code codes.Code, text string) {
	n.t.Helper()
	if status.Code(err) != code || !strings.Contains(messageOf(err), text) {
		n.t.Errorf("%v, want %v with %q", err, code, text)
	}
}

func imageMount(image, sub string) *runtimeapi.Mount {
	return &runtimeapi.Mount{
		ContainerPath: "/model", Readonly: true, Image: &runtimeapi.ImageSpec{Image: image}, ImageSubPath: sub,
	}
}

func (n *node) loadModel() string {
	return n.load(testimage.Options{Name: modelImage, Files: []testimage.File{
		{Path: "home/user/weights", Mode: 0o640, UID: 1000, GID: 1000, Content: "42\n"},
		{Path: "home/out", Link: "../../../../../../../../etc"},
		{Path: "home/abs", Link: "/home/user"},
	}})
}

func TestAnImageVolumeShowsTheImageReadOnlyWithThePodsOwners(t *testing.T) {
	n := started(t)
	id := n.loadModel()
	eachKindOfPod(t, n, func(pod string, _ bool) {
		c := n.runContainerOf(pod, sleeper("c", imageMount(modelImage, "")))
		n.says(c, "cat /model/home/user/weights; stat -c %u:%g /model/bin/busybox /model/home/user/weights", "42\n0:0\n1000:1000")
		n.says(c, "/model/bin/busybox echo runs from there; cat /model/etc/removed 2>&1 | wc -l; ls /model/var/opaque", "runs from there\n1\nnew")
		n.refuses(c, "touch /model/x", "Read-only file system")
		n.refuses(c, "mount -o remount,rw /model", "")
		s, err := n.containerStatus(c)
		n.check(err)
		if got := s.Mounts[0].GetImage(); got.GetImageRef() != id || got.GetImage() != modelImage {
			t.Errorf("the status has the image %v, want %s", got, id)
		}
	})
}

func TestAnImageVolumesSubPathStaysInTheImage(t *testing.T) {
	n := started(t)
	n.loadModel()
	eachKindOfPod(t, n, func(pod string, _ bool) {
		for i, c := range []struct{ sub, script, want string }{
			{"home/user", "cat /model/weights; ls -A /model", "42\nhello\nweights"},
			{"home/user/weights", "cat /model", "42"},
			{"home/abs", "cat /model/weights", "42"},
			{"home/out", "ls /model", "group\npasswd"},
			{"./bin/echo", "wc -c < /model | grep -c .", "1"},
		} {
			n.says(n.runContainerOf(pod, sleeper(fmt.Sprint("c", i), imageMount(modelImage, c.sub))), c.script, c.want)
		}
		n.refusesMounts(pod, codes.NotFound, `"home/user/none"`, imageMount(modelImage, "home/user/none"))
		n.refusesMounts(pod, codes.NotFound, `"bin/busybox/x"`, imageMount(modelImage, "bin/busybox/x"))
		n.refusesMounts(pod, codes.InvalidArgument, "image_sub_path", imageMount(modelImage, "../etc"))
		n.refusesMounts(pod, codes.InvalidArgument, "image_sub_path", imageMount(modelImage, "/etc"))
		n.refusesMounts(pod, codes.NotFound, "docker.io/library/none:1", imageMount("docker.io/library/none:1", ""))
		writable := imageMount(modelImage, "")
		writable.Readonly = false
		n.refusesMounts(pod, codes.InvalidArgument, "readonly", writable)
	})
}

func TestAnImageVolumeKeepsItsImageThroughRemovalAndRestart(t *testing.T) {
	n := started(t)
	id := n.loadModel()
	pod := n.runPodOf(n.podConfig("p", "userns"))
	c := n.runContainerOf(pod, sleeper("c", imageMount(id, "home/user")))
	_, err := n.images.RemoveImage(n.ctx(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: modelImage}})
	n.check(err)
	n.says(c, "cat /model/weights", "42")
	n.kill()
	n.launch()
	n.says(c, "cat /model/weights", "42")
	s, err := n.containerStatus(c)
	n.check(err)
	if s.Mounts[0].GetImage().GetImageRef() != id {
		t.Errorf("the status after a restart: %v", s.Mounts)
	}
	weights := func() []string {
		found, err := filepath.Glob(n.path("root/images/layers/*/*/*/home/user/weights"))
		n.check(err)
		if len(found) == 0 {
			found, err = filepath.Glob(n.path("root/images/*/*/*/home/user/weights"))
			n.check(err)
		}
		return found
	}
	if len(weights()) == 0 {
		t.Error("the layer of a removed image in use was not found on disk")
	}
	_, err = n.runtime.RemoveContainer(n.ctx(), &runtimeapi.RemoveContainerRequest{ContainerId: c})
	n.check(err)
	if left := weights(); len(left) > 0 {
		t.Errorf("the layer of a removed image is still there: %v", left)
	}
}

func TestAVolumesMissingHostPathIsMadeAsADirectory(t *testing.T) {
	t.Parallel()
	n := started(t)
	n.check(os.Mkdir(n.path("volumes/real"), 0o755))
	n.check(os.Symlink("real", n.path("volumes/link")))
	eachKindOfPod(t, n, func(pod string, userns bool) {
		for i, path := range []string{"volumes/missing", "volumes/a/b/c", "volumes/link/below", "volumes/slash/"} {
			path = fmt.Sprint(n.path(path), "-", pod)
			mount := idmapped(userns, &runtimeapi.Mount{HostPath: path, ContainerPath: "/new/place"})
			c := n.runContainerOf(pod, sleeper(fmt.Sprint("c", i), mount))
			n.says(c, "stat -c %u:%g:%a:%F /new/place; echo text >/new/place/file", "0:0:755:directory")
			var st unix.Stat_t
			n.check(unix.Stat(path, &st))
			if st.Uid != 0 || st.Gid != 0 || st.Mode&0o7777 != 0o755 {
				t.Errorf("%s belongs to %d:%d, mode %o", path, st.Uid, st.Gid, st.Mode&0o7777)
			}
			_, err := n.runtime.RemoveContainer(n.ctx(), &runtimeapi.RemoveContainerRequest{ContainerId: c})
			n.check(err)
			if text, err := os.ReadFile(filepath.Join(path, "file")); err != nil || string(text) != "text\n" {
				t.Errorf("after the container: %q, %v", text, err)
			}
		}
	})
	if found := strings.Count(n.log.String(), "a directory was made"); found != 8 {
		t.Errorf("the log names %d directories that were made", found)
	}
}

func TestAHostPathThatCannotBeMadeIsRefusedByNameAndMakesNothing(t *testing.T) {
	t.Parallel()
	n := started(t)
	n.check(os.Symlink(n.path("nowhere"), n.path("volumes/dangling")))
	n.write("volumes/file", "")
	n.check(os.Mkdir(n.path("volumes/ro"), 0o755))
	n.check(unix.Mount("none", n.path("volumes/ro"), "tmpfs", unix.MS_RDONLY, ""))
	t.Cleanup(func() { _ = unix.Unmount(n.path("volumes/ro"), unix.MNT_DETACH) })
	n.before = n.hostState()
	eachKindOfPod(t, n, func(pod string, userns bool) {
		mount := func(path string) *runtimeapi.Mount {
			return idmapped(userns, &runtimeapi.Mount{HostPath: n.path(path), ContainerPath: "/data"})
		}
		other := idmapped(userns, &runtimeapi.Mount{HostPath: n.path("volumes/other"), ContainerPath: "/other"})
		n.refusesMounts(pod, codes.NotFound, "dangling is a symbolic link to "+n.path("nowhere"), other, mount("volumes/dangling"))
		n.refusesMounts(pod, codes.NotFound, "dangling is a symbolic link to "+n.path("nowhere"), other, mount("volumes/dangling/x"))
		n.refusesMounts(pod, codes.InvalidArgument, "not a directory", other, mount("volumes/file/x"))
		n.refusesMounts(pod, codes.FailedPrecondition, "read-only file system", mount("volumes/ro/x"))
		for _, path := range []string{"volumes/other", "nowhere"} {
			if _, err := os.Lstat(n.path(path)); err == nil {
				t.Errorf("%s was made", path)
			}
		}
	})
}

func TestAFileIsMountedWhereTheImageHasNothing(t *testing.T) {
	t.Parallel()
	n := started(t)
	n.write("volumes/file", "text\n")
	n.check(os.Mkdir(n.path("volumes/dir"), 0o755))
	eachKindOfPod(t, n, func(pod string, userns bool) {
		mount := func(name, at string) *runtimeapi.Mount {
			return idmapped(userns, &runtimeapi.Mount{HostPath: n.path("volumes", name), ContainerPath: at})
		}
		c := n.runContainerOf(pod, sleeper("c", mount("file", "/no/such/place"), mount("file", "/etc/passwd"), mount("dir", "/no/such/dir")))
		n.says(c, "cat /no/such/place /etc/passwd; stat -c %F /no/such/dir", "text\ntext\ndirectory")
		for _, m := range []*runtimeapi.Mount{mount("file", "/home"), mount("dir", "/etc/passwd")} {
			// crun leaves out the first slash.
			if err := n.tryMount(pod, m); err == nil || !strings.Contains(messageOf(err), strings.TrimPrefix(m.GetContainerPath(), "/")) || !strings.Contains(strings.ToLower(messageOf(err)), "not a directory") {
				t.Errorf("%s at %s: %v", m.GetHostPath(), m.GetContainerPath(), err)
			}
		}
	})
}

// A mapped volume gets later mounts, too. The kernel copies them as they are.
func TestNewMountsOfTheNodeArriveInIdmappedVolumes(t *testing.T) {
	n := started(t)
	for i, nested := range []string{"tmpfs", "ramfs"} { // all mapped at once, or in parts
		dir := n.sharedVolume(fmt.Sprint("shared", i))
		n.check(os.Mkdir(filepath.Join(dir, "nested"), 0o755))
		n.check(unix.Mount("none", filepath.Join(dir, "nested"), nested, 0, ""))
		n.before = n.hostState()
		pod := n.runPodOf(n.podConfig(fmt.Sprint("p", i), "userns"))
		mount := func(propagation runtimeapi.MountPropagation) *runtimeapi.Mount {
			return idmapped(true, &runtimeapi.Mount{HostPath: dir, ContainerPath: "/data", Propagation: propagation})
		}
		slave := n.runContainerOf(pod, sleeper("slave", mount(runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER)))
		private := n.runContainerOf(pod, sleeper("private", mount(runtimeapi.MountPropagation_PROPAGATION_PRIVATE)))
		at := filepath.Join(dir, "host")
		n.check(unix.Mount("none", at, "tmpfs", 0, "mode=755"))
		n.check(os.WriteFile(filepath.Join(at, "open"), []byte("to all\n"), 0o644))
		n.check(os.WriteFile(filepath.Join(at, "closed"), []byte("secret\n"), 0o600))
		n.says(slave, "mount | grep -c ' /data/host '; cat /data/host/open; stat -c %u /data /data/host", "1\nto all\n0\n65534")
		n.refuses(slave, "cat /data/host/closed", "Permission denied")
		n.refuses(slave, "echo x >/data/host/open", "Permission denied")
		n.says(private, "mount | grep -c ' /data/host '; true", "0")
		n.check(unix.Unmount(at, 0))
		n.says(slave, "mount | grep -c ' /data/host '; true", "0")
	}
}

func TestAFileSystemThatCannotBeMappedIsHiddenBelowAVolume(t *testing.T) {
	n := started(t)
	for dir, kind := range map[string]string{"v/fine": "tmpfs", "v/other": "ramfs"} {
		n.check(os.MkdirAll(n.path("volumes", dir), 0o755))
		n.check(unix.Mount("none", n.path("volumes", dir), kind, 0, ""))
		t.Cleanup(func() { _ = unix.Unmount(n.path("volumes", dir), unix.MNT_DETACH) })
		n.write(filepath.Join("volumes", dir, "file"), "text\n")
	}
	n.before = n.hostState()
	config := n.podConfig("p", "userns")
	config.Linux.SecurityContext.Privileged = true
	mount := idmapped(true, &runtimeapi.Mount{HostPath: n.path("volumes/v"), ContainerPath: "/v"})
	c := n.runContainerOf(n.runPodOf(config), privileged(sleeper("c", mount)))
	n.says(c, "cat /v/fine/file; stat -c %u /v /v/fine; ls -A /v/other; umount -l /v/other 2>/dev/null; ls -A /v/other", "text\n0\n0")
	n.refuses(c, "touch /v/other/x", "Read-only file system")
	if log := n.log.String(); strings.Count(log, "is hidden from the pod") != 1 || !strings.Contains(log, n.path("volumes/v/other")) || !strings.Contains(log, "ramfs") {
		t.Error("the log does not say once what is hidden")
	}
}

func TestLinksInAContainersRootNeverLeadAMountOutside(t *testing.T) {
	n := started(t)
	outside := n.path("volumes/outside")
	n.check(os.MkdirAll(outside, 0o755))
	n.load(testimage.Options{Name: "docker.io/library/hostile:1", Files: []testimage.File{
		{Path: "data", Link: outside}, {Path: "up", Link: "../../../../../../../.." + outside}, {Path: "etc/hosts", Link: outside + "/hosts"},
	}})
	n.check(os.Mkdir(n.path("volumes/v"), 0o755))
	n.write("volumes/v/inside", "yes\n")
	eachKindOfPod(t, n, func(pod string, userns bool) {
		config := sleeper("c",
			idmapped(userns, &runtimeapi.Mount{HostPath: n.path("volumes/v"), ContainerPath: "/data/deep"}),
			idmapped(userns, &runtimeapi.Mount{HostPath: n.path("volumes/v"), ContainerPath: "/up"}))
		config.Image.Image = "docker.io/library/hostile:1"
		inside, want := "cat "+outside+"/deep/inside /up/inside; ", "yes\nyes\n1"
		if binaries.handler == "crun" {
			// A link without a target is refused; no directory is made there.
			_, err := n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config})
			if err == nil || !strings.Contains(messageOf(err), "No such file or directory") {
				t.Errorf("crun: %v", err)
			}
			config.Mounts, inside, want = nil, "", "1"
		}
		c := n.runContainerOf(pod, config)
		n.says(c, inside+"grep -c localhost "+outside+"/hosts | grep -c .", want)
		if found, _ := os.ReadDir(outside); len(found) > 0 {
			t.Errorf("on the host there is %v", found)
		}
	})
}

// sharedVolume is a volume that is a shared mount of the host. Propagation needs that.
func (n *node) sharedVolume(name string) string {
	n.t.Helper()
	dir := n.path("volumes", name)
	n.check(os.MkdirAll(dir, 0o755))
	n.check(unix.Mount("none", dir, "tmpfs", 0, "mode=755"))
	n.check(unix.Mount("", dir, "", unix.MS_SHARED, ""))
	n.t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	n.check(os.MkdirAll(filepath.Join(dir, "host"), 0o755))
	n.check(os.MkdirAll(filepath.Join(dir, "pod"), 0o755))
	n.before = n.hostState()
	return dir
}

func TestMountsPropagateAsAskedFor(t *testing.T) {
	n := started(t)
	dir := n.sharedVolume("shared")
	config := n.podConfig("p")
	config.Linux.SecurityContext.Privileged = true
	pod := n.runPodOf(config)
	host := n.runPodOf(n.podConfig("u", "userns"))
	for i, c := range []struct {
		propagation    runtimeapi.MountPropagation
		toPod, toHosts string
	}{
		{runtimeapi.MountPropagation_PROPAGATION_PRIVATE, "0", "0"},
		{runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER, "1", "0"},
		{runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL, "1", "1"},
	} {
		mount := &runtimeapi.Mount{HostPath: dir, ContainerPath: "/data", Propagation: c.propagation}
		container := sleeper(fmt.Sprint("c", i), mount)
		container.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{Privileged: true}
		id := n.runContainerOf(pod, container)
		n.check(unix.Mount("none", filepath.Join(dir, "host"), "tmpfs", 0, ""))
		n.says(id, "mount | grep -c ' /data/host '; true", c.toPod)
		n.check(unix.Unmount(filepath.Join(dir, "host"), 0))
		n.says(id, "mount | grep -c ' /data/host '; mount -t tmpfs none /data/pod", "0")
		seen := 0
		for _, line := range mountLines() {
			if line == "mount "+filepath.Join(dir, "pod") {
				seen++
			}
		}
		if fmt.Sprint(seen) != c.toHosts {
			t.Errorf("%v: the pod's mount is seen %d times on the host", c.propagation, seen)
		}
		n.says(id, "umount /data/pod", "")
		if c.propagation == runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL {
			n.refusesMounts(host, codes.InvalidArgument, "propagation", mount)
		} else {
			u := n.runContainerOf(host, sleeper(fmt.Sprint("c", i), mount))
			n.check(unix.Mount("none", filepath.Join(dir, "host"), "tmpfs", 0, ""))
			n.says(u, "mount | grep -c ' /data/host '; true", c.toPod)
			n.check(unix.Unmount(filepath.Join(dir, "host"), 0))
		}
	}
}

func TestPropagationThatTheNodesMountCannotGiveIsRefused(t *testing.T) {
	n := started(t)
	dir := n.sharedVolume("v")
	slave, private := filepath.Join(dir, "host"), filepath.Join(dir, "pod")
	for at, kind := range map[string]uintptr{slave: unix.MS_SLAVE, private: unix.MS_PRIVATE} {
		n.check(unix.Mount(dir, at, "", unix.MS_BIND, ""))
		n.check(unix.Mount("", at, "", kind, ""))
		t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	}
	n.check(os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	n.check(os.Symlink(filepath.Join(private, "sub"), n.path("volumes/link")))
	n.before = n.hostState()
	config := n.podConfig("p")
	config.Linux.SecurityContext.Privileged = true
	pod := n.runPodOf(config)
	const both, in = runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL, runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
	mount := func(path string, propagation runtimeapi.MountPropagation) *runtimeapi.Mount {
		return &runtimeapi.Mount{HostPath: path, ContainerPath: "/data", Propagation: propagation}
	}
	for _, path := range []string{private, filepath.Join(private, "sub"), n.path("volumes/link")} {
		n.refusesMounts(pod, codes.FailedPrecondition, "the mount at "+private+", which is not a shared mount", mount(path, both))
		n.refusesMounts(pod, codes.FailedPrecondition, "the mount at "+private+", which is neither a shared nor a slave mount", mount(path, in))
		n.check(n.tryMount(pod, mount(path, runtimeapi.MountPropagation_PROPAGATION_PRIVATE)))
	}
	n.refusesMounts(pod, codes.FailedPrecondition, "the mount at "+slave+", which is not a shared mount", mount(slave, both))
	for _, m := range []*runtimeapi.Mount{mount(slave, in), mount(dir, in), mount(filepath.Join(dir, "sub"), both)} {
		n.check(n.tryMount(pod, m))
	}
	// A path that does not exist yet is on the mount of its parent.
	n.check(n.tryMount(pod, mount(filepath.Join(dir, "made/here"), both)))
	n.refusesMounts(pod, codes.FailedPrecondition, "the mount at "+private, mount(filepath.Join(private, "missing"), both))
	if exists(filepath.Join(private, "missing")) {
		t.Error("a directory was made for a mount that was refused")
	}
}

func TestReadOnlyIsRecursiveOnlyWhereAskedFor(t *testing.T) {
	n := started(t)
	features, err := n.runtime.Status(n.ctx(), &runtimeapi.StatusRequest{})
	n.check(err)
	for _, h := range features.RuntimeHandlers {
		if !h.GetFeatures().GetRecursiveReadOnlyMounts() {
			t.Errorf("handler %s: recursive read-only mounts are not offered", h.Name)
		}
	}
	dir := n.sharedVolume("v")
	n.check(unix.Mount("none", filepath.Join(dir, "host"), "tmpfs", 0, "mode=777"))
	t.Cleanup(func() { _ = unix.Unmount(filepath.Join(dir, "host"), unix.MNT_DETACH) })
	n.before = n.hostState()
	eachKindOfPod(t, n, func(pod string, userns bool) {
		mount := func(recursive bool) *runtimeapi.Mount {
			return idmapped(userns, &runtimeapi.Mount{HostPath: dir, ContainerPath: "/data", Readonly: true, RecursiveReadOnly: recursive})
		}
		c := n.runContainerOf(pod, sleeper("ro", mount(false)))
		n.refuses(c, "touch /data/x", "Read-only file system")
		n.says(c, "touch /data/host/x", "")
		c = n.runContainerOf(pod, sleeper("rro", mount(true)))
		n.refuses(c, "touch /data/x", "Read-only file system")
		n.refuses(c, "touch /data/host/x", "Read-only file system")
		wrong := mount(true)
		wrong.Readonly = false
		n.refusesMounts(pod, codes.InvalidArgument, "recursive_read_only", wrong)
		wrong = mount(true)
		wrong.Propagation = runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
		n.refusesMounts(pod, codes.InvalidArgument, "recursive_read_only", wrong)
	})
}

// As on a node whose /usr or root is read-only: manifests mount it without readOnly.
func TestAMountOfTheNodeKeepsItsRestrictionsAndCanBeAVolumeOfAnyPod(t *testing.T) {
	t.Parallel()
	n := started(t)
	dir := n.path("volumes/system")
	n.check(os.Mkdir(dir, 0o755))
	n.check(unix.Mount("none", dir, "tmpfs", 0, "mode=777"))
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	n.write("volumes/system/text", "of the node\n")
	n.check(unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOATIME, ""))
	n.check(unix.Mount("", dir, "", unix.MS_SHARED, ""))
	n.before = n.hostState()
	eachKindOfPod(t, n, func(pod string, userns bool) {
		var mounts []*runtimeapi.Mount
		for i, propagation := range []runtimeapi.MountPropagation{0, runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER} {
			mounts = append(mounts,
				&runtimeapi.Mount{HostPath: dir, ContainerPath: fmt.Sprint("/plain", i), Propagation: propagation},
				&runtimeapi.Mount{HostPath: dir, ContainerPath: fmt.Sprint("/only", i), Propagation: propagation, Readonly: true},
				idmapped(userns, &runtimeapi.Mount{HostPath: dir, ContainerPath: fmt.Sprint("/mapped", i), Propagation: propagation}))
		}
		mounts = append(mounts, &runtimeapi.Mount{HostPath: dir + "/text", ContainerPath: "/file"})
		c := n.runContainerOf(pod, sleeper("c", mounts...))
		n.says(c, "cat /plain?/text /only?/text /mapped?/text /file | uniq -c | tr -s ' '", "7 of the node")
		n.refuses(c, "echo x >>/plain0/text", "Read-only file system")
		n.refuses(c, "echo x >>/mapped1/text", "Read-only file system")
		n.refuses(c, "echo x >>/file", "Read-only file system")
	})
}

func TestMountOptionsAreApplied(t *testing.T) {
	n := started(t)
	n.check(os.Mkdir(n.path("volumes/v"), 0o755))
	n.check(os.WriteFile(n.path("volumes/v/script"), []byte("#!/bin/sh\necho ran\n"), 0o755))
	n.loadModel()
	if resp, err := n.runtime.Status(n.ctx(), &runtimeapi.StatusRequest{}); err != nil || !resp.GetStatus().GetConditions()[0].GetStatus() || !resp.GetFeatures().GetMountOptions() {
		t.Errorf("mount options are not offered: %v %v", resp, err)
	}
	eachKindOfPod(t, n, func(pod string, userns bool) {
		mount := func(at string, options ...string) *runtimeapi.Mount {
			return idmapped(userns, &runtimeapi.Mount{HostPath: n.path("volumes/v"), ContainerPath: at, MountOptions: options})
		}
		image := imageMount(modelImage, "")
		image.MountOptions = []string{"noexec"}
		c := n.runContainerOf(pod, sleeper("c", mount("/plain"), mount("/strict", "noexec", "nodev", "nosuid"), image))
		n.says(c, "/plain/script", "ran")
		n.refuses(c, "/strict/script", "Permission denied")
		n.refuses(c, "/model/bin/busybox echo", "Permission denied")
		options := strings.Split(n.inside(c, "grep ' /strict ' /proc/self/mountinfo | cut -d' ' -f6"), ",")
		for _, want := range []string{"noexec", "nodev", "nosuid"} {
			if !slices.Contains(options, want) {
				t.Errorf("%s is not among %v", want, options)
			}
		}
		n.refusesMounts(pod, codes.InvalidArgument, "mount_options", mount("/x", "suid"))
	})
}
