package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/config"
)

// cgroup2 is the mount of cgroup v2, as mountinfo has it.
const cgroup2 = "29 21 0:25 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"

// healthy are the files of a node with nothing wrong.
var healthy = map[string]string{
	"/proc/filesystems":                            "nodev\tproc\nnodev\toverlay\n\text4\n",
	"/proc/sys/kernel/osrelease":                   "6.12.0\n",
	"/proc/sys/kernel/seccomp/actions_avail":       "kill_process errno allow\n",
	"/proc/sys/kernel/keys/root_maxkeys":           "1000000\n",
	"/proc/sys/kernel/keys/root_maxbytes":          "25000000\n",
	"/proc/sys/kernel/pid_max":                     "4194304\n",
	"/proc/sys/net/ipv4/ip_forward":                "1\n",
	"/proc/sys/net/bridge/bridge-nf-call-iptables": "1\n",
	"/proc/sys/fs/inotify/max_user_instances":      "8192\n",
	"/proc/sys/fs/inotify/max_user_watches":        "524288\n",
	"/proc/self/mountinfo":                         cgroup2 + "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n",
	"/proc/swaps":                                  "Filename Type Size Used Priority\n",
	"/sys/fs/cgroup/cgroup.controllers":            "cpuset cpu io memory hugetlb pids\n",
	"/etc/cni/net.d/10-net.conflist":               netList("net"),
	"/opt/cni/bin/bridge":                          "#!/bin/sh\n",
	"/opt/cni/bin/host-local":                      "#!/bin/sh\n",
	"/etc/subuid":                                  "root:100000:65536\nkubelet:1048576:7208960\n",
	"/etc/subgid":                                  "root:100000:65536\nkubelet:1048576:7208960\n",
	"/usr/bin/runc":                                ociRuntime(`{"linux":{"namespaces":["user"],"seccomp":{"enabled":true}},"mountOptions":["rro"]}`),
	"/usr/bin/pinder":                              "#!/bin/sh\n",
	"/usr/bin/iptables":                            "#!/bin/sh\n",
	"/usr/bin/getsubids":                           "#!/bin/sh\n",
	"/proc/77/cmdline":                             "/usr/bin/kubelet\x00--config=/var/lib/kubelet/config.yaml\x00",
	"/var/lib/kubelet/config.yaml":                 "containerRuntimeEndpoint: unix:///run/pinfold/pinfold.sock\nfeatureGates: {PodAndContainerStatsFromCRI: true}\n",
	"/var/lib/pinfold/pods/4f1c/pod.json":          "{}",
	"/var/lib/cni/networks/net/10.0.0.2":           "4f1c\r\neth0",
	"/var/lib/cni/networks/net/last_reserved_ip.0": "10.0.0.2",
	"/proc/self/ns/net":                            "", "/proc/self/ns/ipc": "", "/proc/self/ns/uts": "", "/proc/self/ns/pid": "",
	"/proc/self/ns/mnt": "", "/proc/self/ns/user": "", "/proc/self/ns/cgroup": "",
}

func netList(name string) string {
	return fmt.Sprintf(`{"cniVersion": "1.0.0", "name": %q, "plugins": [{"type": "bridge", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.0.0.0/16"}]]}}]}`, name)
}

// runtime is a program that answers the question for its features.
func ociRuntime(features string) string { return "#!/bin/sh\necho '" + features + "'\n" }

// examined makes a healthy node in a directory of the test, with more files or other ones. A file with the text "-" is not
// there.
func examined(t *testing.T, files map[string]string) *Node {
	t.Helper()
	root := t.TempDir()
	for _, all := range []map[string]string{healthy, files} {
		for path, text := range all {
			file := filepath.Join(root, path)
			if text == "-" {
				if err := os.Remove(file); err != nil {
					t.Fatal(err)
				}
				continue
			}
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, s := range settings {
		file := filepath.Join(root, "/proc/sys", strings.ReplaceAll(s.name, ".", "/"))
		if strings.HasPrefix(s.name, "user.") && files["/proc/sys/"+strings.ReplaceAll(s.name, ".", "/")] == "" {
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte("127000\n"), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
	}
	c := &config.Effective{Config: &config.Config{
		Root: "/var/lib/pinfold", Socket: "/run/pinfold/pinfold.sock", CNIConfDir: "/etc/cni/net.d", CNIBinDir: "/opt/cni/bin", DefaultRuntime: "runc",
	}}
	n := &Node{root: root, Config: c}
	n.Daemon = func(context.Context) (Daemon, error) { return Daemon{Version: "1.0.0"}, nil }
	n.probe = probes{
		euid:     func() int { return 0 },
		lookPath: n.inUsrBin,
		userns:   func(string) error { return nil },
		idmapped: func(string) error { return nil },
		statfs: func(string) (unix.Statfs_t, error) {
			return unix.Statfs_t{Bsize: 4096, Blocks: 1 << 24, Bavail: 1 << 23, Files: 1 << 20, Ffree: 1 << 19}, nil
		},
		clock: func() (bool, error) { return true, nil },
	}
	return n
}

func (n *Node) inUsrBin(name string) (string, error) {
	path := n.path("/usr/bin/" + name)
	_, err := os.Stat(path)
	return path, err
}

// bad are the findings that are not OK.
func bad(r Report) []Finding {
	return slices.DeleteFunc(slices.Clone(r.Findings), func(f Finding) bool { return f.Level == OK })
}

func TestAHealthyNodeHasNoFindings(t *testing.T) {
	r := Examine(t.Context(), examined(t, nil))
	if all := bad(r); len(all) > 0 || r.Worst() != OK || len(r.Findings) < len(checks) {
		t.Errorf("got %+v", all)
	}
}

// sick are nodes with one thing wrong: what it is, and the only finding that there may be.
var sick = []struct {
	name  string
	files map[string]string
	more  func(*Node)
	check string
	level Level
	says  string
	// remedy is a part of what to do.
	remedy string
}{
	{"no daemon", nil, func(n *Node) {
		n.Daemon = func(context.Context) (Daemon, error) { return Daemon{}, errors.New("nobody listens") }
	}, "daemon", Error, "nobody listens", "systemctl enable --now pinfold"},
	{"not ready", nil, func(n *Node) {
		n.Daemon = func(context.Context) (Daemon, error) { return Daemon{Problems: []string{"NetworkReady is false"}}, nil }
	}, "daemon", Error, "NetworkReady", "below"},
	{"debts", nil, func(n *Node) {
		n.Daemon = func(context.Context) (Daemon, error) { return Daemon{Debts: 3}, nil }
	}, "daemon", Warning, "3 undos", "check --repair"},
	{"no pinder", map[string]string{"/usr/bin/pinder": "-"}, nil, "configuration", Error, "pinder", "Install pinder"},
	{"a configured pinder is gone", nil, func(n *Node) { n.Config.Pinder = "/opt/pinder" }, "configuration", Error, "/opt/pinder", "pinder"},
	{"no overlay", map[string]string{"/proc/filesystems": "\text4\n"}, nil, "kernel", Error, "overlay", "modprobe overlay"},
	{"no seccomp", map[string]string{"/proc/sys/kernel/seccomp/actions_avail": "-"}, nil, "kernel", Warning, "seccomp", "SECCOMP"},
	{"no IPC namespaces", map[string]string{"/proc/self/ns/ipc": "-"}, nil, "kernel", Error, "ipc", "namespaces"},
	{"an old kernel", nil, func(n *Node) {
		n.probe.userns = func(string) error { return errors.New("invalid argument") }
	}, "user-namespaces", Warning, "cannot have user namespaces", "Linux 6.3"},
	{"not root", nil, func(n *Node) { n.probe.euid = func() int { return 1000 } }, "user-namespaces", Unknown, "only root", ""},
	{"cgroup v1", map[string]string{"/proc/self/mountinfo": "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 21 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"}, nil, "cgroups", Warning, "v1", "unified_cgroup_hierarchy"},
	{"no cgroups", map[string]string{"/proc/self/mountinfo": "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"}, nil, "cgroups", Error, "no cgroups", "Mount"},
	{"no memory controller", map[string]string{"/sys/fs/cgroup/cgroup.controllers": "cpuset cpu pids\n"}, nil, "cgroups", Error, "memory", "cgroup_enable=memory"},
	{"no br_netfilter", map[string]string{"/proc/sys/net/bridge/bridge-nf-call-iptables": "-"}, nil, "modules", Warning, "br_netfilter", "modprobe br_netfilter"},
	{"no iptables", map[string]string{"/usr/bin/iptables": "-"}, nil, "modules", Error, "iptables", "Install"},
	{"no forwarding", map[string]string{"/proc/sys/net/ipv4/ip_forward": "0\n"}, nil, "sysctls", Error, "net.ipv4.ip_forward is 0", "sysctl -w net.ipv4.ip_forward=1"},
	{"few inotify instances", map[string]string{"/proc/sys/fs/inotify/max_user_instances": "128\n"}, nil, "sysctls", Warning, "too many open files", "max_user_instances=512"},
	{"few keys", map[string]string{"/proc/sys/kernel/keys/root_maxkeys": "200\n"}, nil, "sysctls", Warning, "disk quota exceeded", "root_maxkeys"},
	{"few namespaces", map[string]string{"/proc/sys/user/max_net_namespaces": "10\n"}, nil, "sysctls", Warning, "max_net_namespaces is 10", "max_net_namespaces=1000"},
	{"a setting is no number", map[string]string{"/proc/sys/kernel/pid_max": "many\n"}, nil, "sysctls", Unknown, "pid_max", ""},
	{"bridged traffic is not seen", map[string]string{"/proc/sys/net/bridge/bridge-nf-call-iptables": "0\n"}, nil, "sysctls", Warning, "same bridge", "bridge-nf-call-iptables=1"},
	{"no IPv6 forwarding", map[string]string{
		"/etc/cni/net.d/10-net.conflist":         strings.ReplaceAll(netList("net"), "10.0.0.0/16", "fd00::/64"),
		"/proc/sys/net/ipv6/conf/all/forwarding": "0\n",
	}, nil, "sysctls", Warning, "IPv6", "forwarding=1"},
	{"no runtime", map[string]string{"/usr/bin/runc": "-"}, nil, "runtimes", Error, "runc", "Install runc"},
	{"a runtime without user namespaces", map[string]string{"/usr/bin/runc": ociRuntime(`{"linux":{}}`)}, nil, "runtimes", Warning, "no user namespaces", "Install runc"},
	{"a runtime that knows no features", map[string]string{"/usr/bin/runc": "#!/bin/sh\nexit 1\n"}, nil, "runtimes", Warning, "old or broken", "Install runc"},
	{"no network", map[string]string{"/etc/cni/net.d/10-net.conflist": "-"}, nil, "network", Error, "no network configuration", "Install a network"},
	{"a network that is not JSON", map[string]string{"/etc/cni/net.d/10-net.conflist": "{"}, nil, "network", Error, "10-net.conflist", "Install a network"},
	{"no plugin", map[string]string{"/opt/cni/bin/bridge": "-"}, nil, "network", Error, "bridge", "CNI plugins"},
	{"no IPAM plugin", map[string]string{"/opt/cni/bin/host-local": "-"}, nil, "network", Error, "host-local", "cni_bin_dir"},
	{"two networks", map[string]string{"/etc/cni/net.d/99-other.conflist": netList("other")}, nil, "network", Warning, "99-other.conflist", "Remove"},
	{"a line of subuid that is not valid", map[string]string{"/etc/subuid": "x\nkubelet:1048576:7208960\n"}, nil, "ids", Warning, `"x"`, "subuid(5)"},
	{"IDs of two users", map[string]string{"/etc/subuid": "bob:1048576:10\nkubelet:1048576:7208960\n"}, nil, "ids", Warning, "overlap", "of its own"},
	{"subuid and subgid differ", map[string]string{"/etc/subgid": "root:1:1\n"}, nil, "ids", Error, "/etc/subgid", "same line"},
	{"IDs that the kubelet cannot use", map[string]string{"/etc/subuid": "kubelet:1048577:7208960\n", "/etc/subgid": "kubelet:1048577:7208960\n"}, nil, "ids", Error, "not usable", "65536"},
	{"no getsubids", map[string]string{"/usr/bin/getsubids": "-"}, nil, "ids", Warning, "getsubids", "uidmap"},
	{"root is on NFS", map[string]string{"/proc/self/mountinfo": cgroup2 + "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n22 21 0:30 / /var/lib rw - nfs4 host:/x rw\n"}, nil, "file-systems", Error, "nfs4", "local file system"},
	{"root is not executable", map[string]string{"/proc/self/mountinfo": cgroup2 + "21 1 8:1 / / rw,noexec - ext4 /dev/sda1 rw\n"}, nil, "file-systems", Error, "noexec", "without that option"},
	{"root is read-only", map[string]string{"/proc/self/mountinfo": cgroup2 + "21 1 8:1 / / ro - ext4 /dev/sda1 ro\n"}, nil, "file-systems", Error, "read-only", "writable"},
	{"volumes that cannot be idmapped", map[string]string{"/proc/self/mountinfo": cgroup2 + "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n22 21 0:30 / /data rw - nfs4 host:/x rw\n"}, func(n *Node) {
		n.probe.idmapped = func(path string) error {
			if path == "/data" {
				return errNotIDMapped
			}
			return nil
		}
	}, "file-systems", Warning, "/data (nfs4)", "hostUsers"},
	{"a full disk", nil, func(n *Node) {
		n.probe.statfs = func(string) (unix.Statfs_t, error) {
			return unix.Statfs_t{Bsize: 4096, Blocks: 1 << 24, Bavail: 10}, nil
		}
	}, "disk", Error, "0 MiB free", "Free some"},
	{"few inodes", nil, func(n *Node) {
		n.probe.statfs = func(string) (unix.Statfs_t, error) {
			return unix.Statfs_t{Bsize: 4096, Blocks: 1 << 24, Bavail: 1 << 23, Files: 100, Ffree: 1}, nil
		}
	}, "disk", Warning, "inodes", "small files"},
	{"the clock is wrong", nil, func(n *Node) { n.probe.clock = func() (bool, error) { return false, nil } }, "clock", Warning, "not synchronized", "chrony"},
	{"AppArmor without its parser", map[string]string{"/sys/module/apparmor/parameters/enabled": "Y\n"}, nil, "security-modules", Warning, "apparmor_parser", "Install apparmor"},
	{"SELinux without labels", map[string]string{"/sys/fs/selinux/enforce": "1"}, nil, "security-modules", Error, "SELinux", "container-selinux"},
	{"the kubelet uses containerd", map[string]string{"/var/lib/kubelet/config.yaml": "featureGates: {PodAndContainerStatsFromCRI: true}\n"}, nil, "kubelet", Error, "its default", "containerRuntimeEndpoint: unix:///run/pinfold/pinfold.sock"},
	{"a flag of the kubelet names containerd", map[string]string{
		"/proc/77/cmdline": "kubelet\x00--config\x00/var/lib/kubelet/config.yaml\x00--container-runtime-endpoint=unix:///run/containerd/containerd.sock\x00",
	}, nil, "kubelet", Error, "its flag", "containerRuntimeEndpoint"},
	{"an instance of kubeadm names containerd", map[string]string{
		"/var/lib/kubelet/instance-config.yaml": "containerRuntimeEndpoint: unix:///var/run/containerd/containerd.sock\n",
	}, nil, "kubelet", Error, "instance-config", "containerRuntimeEndpoint"},
	{"no statistics", map[string]string{"/var/lib/kubelet/config.yaml": "containerRuntimeEndpoint: unix:///run/pinfold/pinfold.sock\n"}, nil, "kubelet", Warning, "dashboards are empty", "PodAndContainerStatsFromCRI"},
	{
		"a containerd socket where cAdvisor does not look",
		map[string]string{"/var/lib/kubelet/config.yaml": "containerRuntimeEndpoint: unix:///run/pinfold/pinfold.sock\n"},
		func(n *Node) { n.Config.ContainerdSocket = "/run/pinfold/containerd.sock" }, "kubelet", Warning, "dashboards are empty", "containerd_socket",
	},
	{"swap", map[string]string{"/proc/swaps": "Filename Type\n/dev/sda2 partition\n/dev/sda3 partition\n"}, nil, "kubelet", Error, "swap", "swapoff"},
	{"a short wait", map[string]string{"/var/lib/kubelet/config.yaml": healthyKubelet + "runtimeRequestTimeout: 10s\n"}, nil, "kubelet", Warning, "10s", "runtimeRequestTimeout"},
	{"too few IDs for the kubelet's pods", map[string]string{"/var/lib/kubelet/config.yaml": healthyKubelet + "maxPods: 250\n"}, nil, "kubelet", Error, "250 pods", "maxPods"},
	{"a kubelet's file that is no YAML", map[string]string{"/var/lib/kubelet/config.yaml": "\t{"}, nil, "kubelet", Unknown, "/var/lib/kubelet/config.yaml", "--kubelet-config"},
	{"containerd serves, too", map[string]string{"/run/containerd/containerd.sock": ""}, nil, "other-runtimes", Warning, "containerd serves", "disable"},
	{"pods of containerd run", map[string]string{"/proc/88/cmdline": "/usr/bin/containerd-shim-runc-v2\x00-namespace\x00k8s.io\x00-id\x00x\x00"}, nil, "other-runtimes", Error, "1 pods of containerd", "rmp --all"},
	{"containerd was killed", map[string]string{"/run/containerd/io.containerd.runtime.v2.task/k8s.io/x/config.json": "{}"}, nil, "other-runtimes", Warning, "1 containers", "reboot"},
	{"addresses of other pods", map[string]string{"/var/lib/cni/networks/net/10.0.0.3": "another\r\neth0"}, nil, "other-runtimes", Warning, "1 addresses", "/var/lib/cni/networks/net"},
}

const healthyKubelet = "containerRuntimeEndpoint: unix:///run/pinfold/pinfold.sock\nfeatureGates: {PodAndContainerStatsFromCRI: true}\n"

func TestWhatIsWrongIsFoundWithItsRemedy(t *testing.T) {
	for _, c := range sick {
		t.Run(c.name, func(t *testing.T) {
			n := examined(t, c.files)
			if c.more != nil {
				c.more(n)
			}
			all := bad(Examine(t.Context(), n))
			i := slices.IndexFunc(all, func(f Finding) bool {
				return f.Check == c.check && f.Level == c.level && strings.Contains(f.What, c.says) && strings.Contains(f.Remedy, c.remedy)
			})
			if i < 0 {
				t.Fatalf("%s: %s %q is not among %+v", c.check, c.level, c.says, all)
			}
			for _, f := range all {
				if f.Check != c.check && f.Level != Unknown {
					t.Errorf("also found: %+v", f)
				}
			}
		})
	}
}

func TestTheFlagsOfAKubeletThatDoesNotRunAreKubeadms(t *testing.T) {
	files := map[string]string{
		"/proc/77/cmdline":                   "-",
		"/var/lib/kubelet/config.yaml":       "featureGates: {PodAndContainerStatsFromCRI: true}\n",
		"/var/lib/kubelet/kubeadm-flags.env": "KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint=unix:///run/pinfold/pinfold.sock --v=2\"\n",
	}
	if found := bad(Examine(t.Context(), examined(t, files))); len(found) > 0 {
		t.Errorf("%+v", found)
	}
}

func TestCrunAloneIsTheDefaultRuntime(t *testing.T) {
	n := examined(t, map[string]string{"/usr/bin/runc": "-", "/usr/bin/crun": healthy["/usr/bin/runc"]})
	if found := bad(Examine(t.Context(), n)); len(found) > 0 {
		t.Errorf("%+v", found)
	}
}

func TestAContainerdSocketWhereCAdvisorLooksIsAsGoodAsTheGate(t *testing.T) {
	for _, socket := range []string{"/run/containerd/containerd.sock", "/var/run/containerd/containerd.sock"} {
		n := examined(t, map[string]string{
			"/var/lib/kubelet/config.yaml":    "containerRuntimeEndpoint: unix:///run/pinfold/pinfold.sock\n",
			"/run/containerd/containerd.sock": "",
		})
		n.Config.ContainerdSocket = socket
		if found := bad(Examine(t.Context(), n)); len(found) > 0 {
			t.Errorf("%s: %+v", socket, found)
		}
	}
}

func TestAConfigurationThatCannotBeReadIsOneFindingAndNoPanic(t *testing.T) {
	n := examined(t, nil)
	n.Config, n.ConfigError = nil, errors.New("config.toml:3:1: unknown key")
	r := Examine(t.Context(), n)
	if !slices.ContainsFunc(r.Findings, func(f Finding) bool {
		return f.Check == "configuration" && f.Level == Error && strings.Contains(f.What, ":3:1")
	}) {
		t.Errorf("got %+v", bad(r))
	}
	for _, f := range r.Findings {
		if strings.Contains(f.What, "the check failed") {
			t.Errorf("got %+v", f)
		}
	}
}

func TestACheckThatBreaksOrHangsIsUnknown(t *testing.T) {
	n := examined(t, nil)
	n.probe.clock = func() (bool, error) { panic("broken") }
	if got := (check{"clock", clock}).within(t.Context(), n); len(got) != 1 || got[0].Level != Unknown || !strings.Contains(got[0].What, "broken") {
		t.Errorf("it breaks: %+v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	hang := check{"hang", func(context.Context, *Node) findings { select {} }}
	if got := hang.within(ctx, n); len(got) != 1 || got[0].Level != Unknown {
		t.Errorf("it hangs: %+v", got)
	}
}

func TestTheWorstLevelDecides(t *testing.T) {
	for _, c := range []struct {
		levels []Level
		want   Level
	}{
		{nil, OK}, {[]Level{OK, Unknown}, Unknown}, {[]Level{Unknown, Warning, OK}, Warning}, {[]Level{Warning, Error, Unknown}, Error},
	} {
		var r Report
		for _, l := range c.levels {
			r.Findings = append(r.Findings, Finding{Level: l})
		}
		if got := r.Worst(); got != c.want {
			t.Errorf("%v: %s, want %s", c.levels, got, c.want)
		}
	}
}

func TestDropInsOfTheKubeletCountMoreThanItsFile(t *testing.T) {
	n := examined(t, map[string]string{
		"/proc/77/cmdline":                 "kubelet\x00--config=/var/lib/kubelet/config.yaml\x00--config-dir=/etc/kubelet.d\x00",
		"/var/lib/kubelet/config.yaml":     "maxPods: 50\n",
		"/etc/kubelet.d/10-runtime.conf":   "containerRuntimeEndpoint: unix:///run/containerd/containerd.sock\n",
		"/etc/kubelet.d/20-runtime.conf":   healthyKubelet,
		"/etc/kubelet.d/30-other.conf.bak": "\t{",
	})
	if all := bad(Examine(t.Context(), n)); len(all) > 0 {
		t.Errorf("got %+v", all)
	}
}
