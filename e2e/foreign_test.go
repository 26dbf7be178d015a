package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// notLogs are files other than logs that can be at a log's path. Each function makes one.
var notLogs = map[string]func(n *node, path string) error{
	"a FIFO":          func(_ *node, path string) error { return unix.Mkfifo(path, 0o600) },
	"a socket":        func(_ *node, path string) error { return unix.Mknod(path, unix.S_IFSOCK|0o600, 0) },
	"a device":        func(_ *node, path string) error { return unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 7))) },
	"a directory":     func(_ *node, path string) error { return os.Mkdir(path, 0o755) },
	"a symbolic link": func(n *node, path string) error { return os.Symlink(n.path("victim"), path) },
}

// TestWhatIsNoLogIsNeitherWaitedForNorFollowed puts another file at a log's path, before a
// container is made and before its log is reopened. Neither call blocks, and what was not made can
// be removed.
func TestWhatIsNoLogIsNeitherWaitedForNorFollowed(t *testing.T) {
	t.Parallel()
	n := started(t)
	pod := n.runPodOf(n.podConfig("p", "userns"))
	n.check(os.MkdirAll(n.path("logs/p"), 0o755))
	for what, put := range notLogs {
		name := strings.ReplaceAll(what, " ", "-")
		config := containerConfig(name, "sh", "-c", "while :; do echo line; sleep .1; done")
		log := n.path("logs/p", name+".log")
		n.check(put(n, log))
		begun := time.Now()
		_, err := n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config})
		n.isRefusal(err, codes.FailedPrecondition, log+": cannot be a container's log: it is "+what)
		n.check(os.Remove(log))

		c := n.runContainerOf(pod, config)
		n.logTexts(c, "line")
		n.check(os.Rename(log, log+".old"))
		n.check(put(n, log))
		n.isRefusal(n.reopenLog(c), codes.FailedPrecondition, log+": cannot be a container's log: it is "+what)
		n.check(os.Remove(log))
		n.check(n.reopenLog(c)) // the old file was used meanwhile
		n.logTexts(c, "line")
		if took := time.Since(begun); took > slow(20*time.Second) {
			t.Errorf("%s: took %v", what, took)
		}
	}
	if _, err := os.Lstat(n.path("victim")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a link was followed: %v", err)
	}
}

// TestDirectoriesOfLogsAreNotFollowedOutOfThePods replaces a directory between the pod's directory
// and the log by a link. The pod's directory itself may be behind links of the operator.
func TestDirectoriesOfLogsAreNotFollowedOutOfThePods(t *testing.T) {
	t.Parallel()
	n := started(t)
	n.check(errors.Join(os.MkdirAll(n.path("elsewhere/p"), 0o755), os.Mkdir(n.path("outside"), 0o755)))
	n.check(errors.Join(os.Symlink(n.path("elsewhere"), n.path("linked")), os.Symlink(n.path("outside"), n.path("elsewhere/p/out"))))
	config := n.podConfig("p")
	config.LogDirectory = n.path("linked/p")
	pod := n.runPodOf(config)
	good := containerConfig("good", "sh", "-c", "echo line; exec sleep 1000")
	good.LogPath = "good/more/0.log"
	n.logTexts(n.runContainerOf(pod, good), "line")
	for _, path := range []string{"out/0.log", "out/made/0.log"} {
		bad := containerConfig("bad", "sleep", "1000")
		bad.LogPath = path
		_, err := n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: bad})
		if status.Code(err) == codes.OK || !strings.Contains(messageOf(err), "log") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if left, _ := filepath.Glob(n.path("outside/*")); len(left) > 0 {
		t.Errorf("outside there is %v", left)
	}
}

// TestANameOfAPodIsNeverALineOfItsFiles sends names that would add a line to /etc/hosts or
// /etc/resolv.conf.
func TestANameOfAPodIsNeverALineOfItsFiles(t *testing.T) {
	t.Parallel()
	n := started(t)
	for field, change := range map[string]func(*runtimeapi.PodSandboxConfig){
		"metadata.name":          func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Name, c.Hostname = "a\n1.2.3.4 evil", "" },
		"metadata.namespace":     func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Namespace = "a\n1.2.3.4 evil" },
		"metadata.uid":           func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Uid = "a\nb" },
		"hostname":               func(c *runtimeapi.PodSandboxConfig) { c.Hostname = "a\n1.2.3.4 evil" },
		"dns_config.servers[0]":  func(c *runtimeapi.PodSandboxConfig) { c.DnsConfig.Servers = []string{"fe80::1%x\nnameserver 6.6.6.6"} },
		"dns_config.searches[0]": func(c *runtimeapi.PodSandboxConfig) { c.DnsConfig.Searches = []string{"a\nnameserver 6.6.6.6"} },
		"dns_config.options[0]":  func(c *runtimeapi.PodSandboxConfig) { c.DnsConfig.Options = []string{"a\vb"} },
		"log_directory":          func(c *runtimeapi.PodSandboxConfig) { c.LogDirectory += "\n" },
	} {
		for _, options := range [][]string{nil, {"userns"}, {"host-network"}} {
			config := n.podConfig("p", options...)
			config.DnsConfig = &runtimeapi.DNSConfig{}
			change(config)
			n.isRefusal(n.tryPod(config, ""), codes.InvalidArgument, field)
		}
	}
	if left, _ := os.ReadDir(n.path("root/pods")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestFilesThatAClientNamesAreNotWaitedFor names a FIFO where Pinfold reads a file.
func TestFilesThatAClientNamesAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	n := started(t)
	n.check(unix.Mkfifo(n.path("fifo"), 0o600))
	pod := n.runPodOf(n.podConfig("p"))
	config := sleeper("c")
	securityContext(config).Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: n.path("fifo")}
	n.refusesContainer(pod, config, codes.InvalidArgument, n.path("fifo")+" is a FIFO")

	n.check(os.Rename(n.path("cni/10-test.conflist"), n.path("cni/20-test.conflist")))
	n.check(unix.Mkfifo(n.path("cni/10-test.conflist"), 0o600))
	n.isRefusal(n.tryPod(n.podConfig("q"), ""), codes.FailedPrecondition, "10-test.conflist")
	n.check(os.Remove(n.path("cni/10-test.conflist")))
}
