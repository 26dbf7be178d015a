package pin

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/pinfold-run/pinfold/internal/testroot"
)

// TestSysfsCanBeMountedOnlyByTheOwnerOfTheNetwork is the reason for the package. The same process,
// root in the same user namespace, may mount sysfs if that user namespace owns the network
// namespace. It may not if the host does.
func TestSysfsCanBeMountedOnlyByTheOwnerOfTheNetwork(t *testing.T) {
	testroot.Need(t)
	inside := mustCreate(t, &testMappings, all)
	outside := mustCreate(t, nil, Net)
	user, ownNet, hostsNet := pinPath(t), pinPath(t), pinPath(t)
	for path, n := range map[string]*Namespace{user: inside.User, ownNet: inside.Net, hostsNet: outside.Net} {
		if err := n.Pin(path); err != nil {
			t.Fatal(err)
		}
	}
	out, err := mountSysfs(user, ownNet)
	if err != nil || !slices.Contains(strings.Fields(out), "lo") {
		t.Errorf("with a network namespace of its own: %q, %v; want sysfs with the device lo", out, err)
	}
	out, err = mountSysfs(user, hostsNet)
	if err == nil || !strings.Contains(out, "permission denied") {
		t.Errorf("with the host's network namespace: %q, %v; want permission denied", out, err)
	}
	t.Logf("with the host's network namespace: %s", strings.TrimSpace(out))
}

// mountSysfs joins both namespaces, mounts sysfs in its own mount namespace and lists the network
// devices in it. It joins the network first, with the host's rights, so that only the mount can
// fail.
func mountSysfs(user, net string) (string, error) {
	cmd := exec.Command("nsenter", "--net="+net, "nsenter", "--user="+user, "unshare", "--mount",
		"sh", "-c", "mount -t sysfs sysfs /sys && ls /sys/class/net")
	cmd.Dir = "/"
	cmd.Env = append(cmd.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	return string(out), err
}
