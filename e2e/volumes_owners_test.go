package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/testimage"
)

func TestIdmappedVolumesBelongToThePodWhateverTheyAre(t *testing.T) {
	n := started(t)
	n.check(os.MkdirAll(n.path("volumes/dir/nested"), 0o755))
	n.write("volumes/file", "text\n")
	for _, dir := range []string{"volumes/tmpfs", "volumes/dir/nested"} {
		n.check(os.MkdirAll(n.path(dir), 0o755))
		n.check(unix.Mount("none", n.path(dir), "tmpfs", 0, "mode=755"))
		t.Cleanup(func() { _ = unix.Unmount(n.path(dir), unix.MNT_DETACH) })
	}
	n.before = n.hostState()
	pod := n.runPodOf(n.podConfig("p", "userns"))
	mount := func(name, at string) *runtimeapi.Mount {
		return idmapped(true, &runtimeapi.Mount{HostPath: n.path("volumes", name), ContainerPath: at})
	}
	c := n.runContainerOf(pod, sleeper("c", mount("dir", "/dir"), mount("file", "/file"), mount("tmpfs", "/tmpfs")))
	n.says(c, "stat -c %u:%g /dir /file /tmpfs /dir/nested", "0:0\n0:0\n0:0\n0:0")
	n.says(c, "for d in /dir /tmpfs /dir/nested; do echo x > $d/made; chown 1:2 $d/made; done; echo more >> /file", "")
	for _, name := range []string{"dir/made", "tmpfs/made", "dir/nested/made"} {
		var st unix.Stat_t
		n.check(unix.Stat(n.path("volumes", name), &st))
		if st.Uid != 1 || st.Gid != 2 {
			t.Errorf("%s belongs to %d:%d on the host", name, st.Uid, st.Gid)
		}
	}
	unmapped := mount("dir", "/dir")
	unmapped.UidMappings, unmapped.GidMappings = nil, nil
	c = n.runContainerOf(pod, sleeper("unmapped", unmapped))
	n.says(c, "stat -c %u:%g /dir", "65534:65534")
	n.refusesMounts(pod, codes.FailedPrecondition, "proc", idmapped(true, &runtimeapi.Mount{HostPath: "/proc", ContainerPath: "/x"}))
	n.refusesMounts(n.runPodOf(n.podConfig("h")), codes.InvalidArgument, "user namespace", mount("dir", "/dir"))
}

func TestTheFilesThatAPodIsGivenAreItsOwn(t *testing.T) {
	n := started(t)
	eachKindOfPod(t, n, func(pod string, userns bool) {
		c := n.runContainerOf(pod, sleeper("c"))
		n.says(c, "stat -c %u:%g:%a /etc/hosts /etc/hostname /etc/resolv.conf", "0:0:644\n0:0:644\n0:0:644")
		n.says(c, "echo 10.1.2.3 other >> /etc/hosts; echo nameserver 10.0.0.1 > /etc/resolv.conf; tail -n1 /etc/hosts", "10.1.2.3 other")
		second := n.runContainerOf(pod, sleeper("d"))
		n.says(second, "tail -n1 /etc/hosts; cat /etc/resolv.conf", "10.1.2.3 other\nnameserver 10.0.0.1")
		n.says(c, "df -k /dev/shm | tail -n1 | awk '{print $2}'; stat -c %u:%a /dev/shm; echo x > /dev/shm/f", "65536\n0:1777")
		n.says(second, "cat /dev/shm/f", "x")

		readOnly := sleeper("ro")
		readOnly.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{ReadonlyRootfs: true}
		n.refuses(n.runContainerOf(pod, readOnly), "echo x >> /etc/hosts", "Read-only file system")

		// The kubelet's termination message is a file that it makes and mounts.
		name := filepath.Join("volumes", "message-"+pod)
		n.write(name, "")
		n.check(os.Chmod(n.path(name), 0o666))
		last := containerConfig("last", "sh", "-c", "echo the end > /dev/termination-log")
		last.Mounts = []*runtimeapi.Mount{idmapped(userns, &runtimeapi.Mount{HostPath: n.path(name), ContainerPath: "/dev/termination-log"})}
		id := n.runContainerOf(pod, last)
		n.check(n.until("the end", func() bool {
			s, err := n.containerStatus(id)
			return err == nil && s.State == runtimeapi.ContainerState_CONTAINER_EXITED
		}))
		if data, err := os.ReadFile(n.path(name)); err != nil || string(data) != "the end\n" {
			t.Errorf("termination message: %q %v", data, err)
		}
	})
}

func TestFilesOfAnImageBeyondThePodsRangeAreSaidInTheLog(t *testing.T) {
	t.Parallel()
	n := started(t)
	const image, warning = "docker.io/library/wide:test", "files of an image have owners that the pod's user namespace does not map"
	n.load(testimage.Options{Name: image, Files: []testimage.File{{Path: "far", Mode: 0o644, UID: 70000, GID: 5, Content: "x\n"}}})
	run := func(pod string) string {
		config := sleeper("c")
		config.Image.Image = image
		return n.runContainerOf(pod, config)
	}
	n.says(run(n.runPodOf(n.podConfig("host"))), "stat -c %u:%g /far", "70000:5")
	pod := n.runPodOf(n.podConfig("p", "userns"))
	n.runContainerOf(pod, sleeper("other"))
	if strings.Contains(n.log.String(), warning) {
		t.Error("there is a warning for pods that map all owners")
	}
	n.says(run(pod), "stat -c %u:%g /far; cat /far", "65534:5\nx")
	if log := n.log.String(); !strings.Contains(log, warning) || !strings.Contains(log, "greatest_uid=70000") {
		t.Error("there is no warning")
	}
}
