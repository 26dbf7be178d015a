package e2e

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// securityContext is the security context of a configuration; it is made if it is missing.
func securityContext(c *runtimeapi.ContainerConfig) *runtimeapi.LinuxContainerSecurityContext {
	if c.Linux.SecurityContext == nil {
		c.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{}
	}
	return c.Linux.SecurityContext
}

// confined is one setting of a security context, and how a process in the container sees it.
type confined struct {
	name   string
	ask    func(*runtimeapi.LinuxContainerSecurityContext)
	script string
	// want is the output; userns, if not empty, the output in a pod with a user namespace.
	want, userns string
}

// areConfined runs each case in a pod of the node's user namespace and in one of its own.
func areConfined(t *testing.T, cases []confined) {
	t.Parallel()
	n := started(t)
	for _, options := range [][]string{nil, {"userns"}} {
		config := n.podConfig("p"+strings.Join(options, ""), options...)
		config.Linux.SecurityContext.Privileged = true // a privileged container needs a privileged pod
		pod := n.runPodOf(config)
		for _, c := range cases {
			c.in(n, pod, len(options) > 0)
		}
	}
}

func (c confined) in(n *node, pod string, userns bool) {
	config := sleeper(strings.ReplaceAll(c.name, " ", "-"))
	config.LogPath = ""
	if c.ask != nil {
		c.ask(securityContext(config))
	}
	want := c.want
	if userns && c.userns != "" {
		want = c.userns
	}
	id := n.runContainerOf(pod, config)
	if got := n.inside(id, c.script); got != want {
		n.t.Errorf("%s (user namespace: %t): %s:\n  got  %q\n  want %q", c.name, userns, c.script, got, want)
	}
	_, err := n.runtime.RemoveContainer(n.ctx(), &runtimeapi.RemoveContainerRequest{ContainerId: id})
	n.check(err)
}

type sc = runtimeapi.LinuxContainerSecurityContext

// mask is the form of a capability set in proc_pid_status(5).
func mask(bits ...int) string {
	var set uint64
	for _, b := range bits {
		set |= 1 << b
	}
	return fmt.Sprintf("%016x", set)
}

// held are the capabilities of this process, which are the daemon's.
func held(t *testing.T) []int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	set := ^uint64(0)
	for line := range strings.Lines(string(data)) {
		if key, value, _ := strings.Cut(line, ":"); key == "CapPrm" || key == "CapBnd" {
			bits, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			set &= bits
		}
	}
	var list []int
	for b := range 41 {
		if set&(1<<b) != 0 {
			list = append(list, b)
		}
	}
	return list
}

func without(list []int, bit int) []int {
	return slices.DeleteFunc(slices.Clone(list), func(b int) bool { return b == bit })
}

func TestCapabilitiesAreWhatWasAskedFor(t *testing.T) {
	common := []int{0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31}
	all := make([]int, 41)
	for b := range all {
		all[b] = b
	}
	caps := func(add, drop, ambient []string) func(*sc) {
		return func(s *sc) {
			s.Capabilities = &runtimeapi.Capability{AddCapabilities: add, DropCapabilities: drop, AddAmbientCapabilities: ambient}
		}
	}
	effective := "grep CapEff /proc/1/status | cut -f2"
	const netRaw, netAdmin = 13, 12
	areConfined(t, []confined{
		{name: "default", script: effective, want: mask(common...)},
		{name: "add", ask: caps([]string{"NET_ADMIN"}, nil, nil), script: effective, want: mask(append(common, netAdmin)...)},
		{name: "drop", ask: caps(nil, []string{"cap_net_raw"}, nil), script: effective, want: mask(without(common, netRaw)...)},
		{name: "drop all", ask: caps(nil, []string{"ALL"}, nil), script: effective, want: mask()},
		{name: "drop all add one", ask: caps([]string{"CHOWN"}, []string{"ALL"}, nil), script: effective, want: mask(0)},
		{name: "add all", ask: caps([]string{"ALL"}, nil, nil), script: effective, want: mask(held(t)...), userns: mask(all...)},
		{
			name: "add all drop one", ask: caps([]string{"ALL"}, []string{"NET_RAW"}, nil), script: effective,
			want: mask(without(held(t), netRaw)...), userns: mask(without(all, netRaw)...),
		},
		{
			name: "ambient", script: "grep -E 'CapAmb|CapEff' /proc/1/status | cut -f2", want: mask(10) + "\n" + mask(10),
			ask: func(s *sc) {
				caps(nil, nil, []string{"NET_BIND_SERVICE"})(s)
				s.RunAsUser = &runtimeapi.Int64Value{Value: 1000}
			},
		},
		{name: "other user", ask: func(s *sc) { s.RunAsUser = &runtimeapi.Int64Value{Value: 1000} }, script: effective, want: mask()},
		{name: "privileged", ask: func(s *sc) { s.Privileged = true }, script: effective, want: mask(held(t)...), userns: mask(all...)},
		{
			name: "privileged devices", ask: func(s *sc) { s.Privileged = true },
			script: "test -e /dev/kmsg || test -e /dev/fuse || test -e /dev/loop-control && echo the node\\'s || echo its own", want: hostDevices(), userns: "its own",
		},
		{name: "privileged sysfs", ask: func(s *sc) { s.Privileged = true }, script: "awk '$2 == \"/sys\" { print substr($4, 1, 2) }' /proc/mounts", want: "rw"},
	})
}

// hostDevices says whether this node has one of the devices that only a privileged container sees.
func hostDevices() string {
	for _, d := range []string{"/dev/kmsg", "/dev/fuse", "/dev/loop-control"} {
		if _, err := os.Stat(d); err == nil {
			return "the node's"
		}
	}
	return "its own"
}

func TestUsersAndGroupsAreThoseOfTheImageAndTheRequest(t *testing.T) {
	user := func(uid int64) *runtimeapi.Int64Value { return &runtimeapi.Int64Value{Value: uid} }
	ids := "id -u; id -g; id -G"
	areConfined(t, []confined{
		{name: "root", script: ids, want: "0\n0\n0"},
		{name: "uid", ask: func(s *sc) { s.RunAsUser = user(1000) }, script: ids, want: "1000\n1000\n1000 2000"},
		{name: "uid nobody knows", ask: func(s *sc) { s.RunAsUser = user(4321) }, script: ids, want: "4321\n0\n0"},
		{name: "uid and gid", ask: func(s *sc) { s.RunAsUser, s.RunAsGroup = user(1000), user(3000) }, script: ids, want: "1000\n3000\n3000 2000"},
		{name: "name", ask: func(s *sc) { s.RunAsUsername = "user" }, script: ids, want: "1000\n1000\n1000 2000"},
		{name: "merge", ask: func(s *sc) { s.RunAsUser, s.SupplementalGroups = user(1000), []int64{5000} }, script: ids, want: "1000\n1000\n1000 2000 5000"},
		{name: "strict", ask: func(s *sc) {
			s.RunAsUser, s.SupplementalGroups = user(1000), []int64{5000}
			s.SupplementalGroupsPolicy = runtimeapi.SupplementalGroupsPolicy_Strict
		}, script: ids, want: "1000\n1000\n1000 5000"},
	})
}

func TestContainerStatusEchoesTheEffectiveUser(t *testing.T) {
	t.Parallel()
	n := started(t)
	config := sleeper("c")
	securityContext(config).RunAsUsername = "user"
	securityContext(config).SupplementalGroups = []int64{5000}
	id := n.runContainerOf(n.runPodOf(n.podConfig("p", "userns")), config)
	s, err := n.containerStatus(id)
	n.check(err)
	if u := s.GetUser().GetLinux(); u.GetUid() != 1000 || u.GetGid() != 1000 || !slices.Equal(u.GetSupplementalGroups(), []int64{1000, 2000, 5000}) {
		t.Errorf("user %v", s.GetUser())
	}
}

func TestAContainerIsFencedInAsAskedFor(t *testing.T) {
	file := func(name, content string) string {
		path := t.TempDir() + "/" + name
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	noDirectories := file("seccomp.json", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":1}]}`)
	profile := func(kind runtimeapi.SecurityProfile_ProfileType, ref string) func(*sc) {
		return func(s *sc) { s.Seccomp = &runtimeapi.SecurityProfile{ProfileType: kind, LocalhostRef: ref} }
	}
	mode := "grep '^Seccomp:' /proc/1/status | cut -f2"
	areConfined(t, []confined{
		{name: "writable root", script: "touch /x && echo written", want: "written"},
		{name: "read-only root", ask: func(s *sc) { s.ReadonlyRootfs = true }, script: "touch /x 2>&1 | grep -o Read-only", want: "Read-only"},
		{name: "new privileges", script: "grep NoNewPrivs /proc/1/status | cut -f2", want: "0"},
		{name: "no new privileges", ask: func(s *sc) { s.NoNewPrivs = true }, script: "grep NoNewPrivs /proc/1/status | cut -f2", want: "1"},
		{name: "no seccomp", script: mode, want: "0"},
		{name: "seccomp unconfined", ask: profile(runtimeapi.SecurityProfile_Unconfined, ""), script: mode, want: "0"},
		{name: "seccomp default", ask: profile(runtimeapi.SecurityProfile_RuntimeDefault, ""), script: mode, want: "2"},
		{name: "seccomp default forbids", ask: profile(runtimeapi.SecurityProfile_RuntimeDefault, ""), script: "unshare -m true 2>&1 | grep -o 'not permitted'", want: "not permitted"},
		{name: "seccomp localhost", ask: profile(runtimeapi.SecurityProfile_Localhost, noDirectories), script: "mkdir /x 2>&1 | grep -o 'not permitted'; touch /y && echo others work", want: "not permitted\nothers work"},
		{name: "privileged is not filtered", ask: func(s *sc) {
			s.Privileged = true
			profile(runtimeapi.SecurityProfile_RuntimeDefault, "")(s)
		}, script: mode, want: "0"},
		{name: "paths as by default", script: "wc -c < /proc/keys; grep -c ' /proc/sys proc ro' /proc/mounts", want: "0\n1"},
		{name: "unmasked", ask: func(s *sc) { s.MaskedPaths, s.ReadonlyPaths = nil, nil }, script: "grep -cE ' /proc/(keys|sys|kcore)' /proc/mounts", want: "0 (exit 1)"},
		{name: "masked and read-only", ask: func(s *sc) {
			s.MaskedPaths, s.ReadonlyPaths = []string{"/etc/group", "/no/such/path"}, []string{"/home"}
		}, script: "wc -c < /etc/group; touch /home/x 2>&1 | grep -o Read-only", want: "0\nRead-only"},
	})
}

func TestLimitsAreExplicitAndNotThoseOfTheDaemon(t *testing.T) {
	n := newNode(t)
	// No container may get the limits that the daemon and pinder have from their unit.
	var before, odd unix.Rlimit
	n.check(unix.Getrlimit(unix.RLIMIT_STACK, &before))
	odd = unix.Rlimit{Cur: 1 << 20, Max: before.Max}
	n.check(unix.Setrlimit(unix.RLIMIT_STACK, &odd))
	n.launch()
	n.check(unix.Setrlimit(unix.RLIMIT_STACK, &before))
	n.loadImage()
	var files, core unix.Rlimit
	n.check(unix.Getrlimit(unix.RLIMIT_NOFILE, &files))
	n.check(unix.Getrlimit(unix.RLIMIT_CORE, &core))
	wantFiles := uint64(1 << 20)
	if !mayRaiseLimits(t) {
		wantFiles = min(files.Max, wantFiles)
	}
	for _, options := range [][]string{nil, {"userns"}} {
		id := n.runContainerOf(n.runPodOf(n.podConfig("p"+strings.Join(options, ""), options...)), sleeper("c"))
		n.says(id, "ulimit -s", "8192")
		n.says(id, "ulimit -Hn", strconv.FormatUint(wantFiles, 10))
		if core.Max == unix.RLIM_INFINITY {
			n.says(id, "ulimit -c", "unlimited")
		}
	}
}

// mayRaiseLimits reports whether this process, and so the daemon, has CAP_SYS_RESOURCE.
func mayRaiseLimits(t *testing.T) bool {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

func TestTheOOMScoreIsTheOneAskedForOrTheLowestAllowed(t *testing.T) {
	t.Parallel()
	n := started(t)
	own, err := os.ReadFile("/proc/self/oom_score_adj")
	n.check(err)
	lowest, _ := strconv.ParseInt(strings.TrimSpace(string(own)), 10, 64)
	if slices.Contains(held(t), unix.CAP_SYS_RESOURCE) {
		lowest = -1000
	}
	for _, options := range [][]string{nil, {"userns"}} {
		pod := n.runPodOf(n.podConfig("p"+strings.Join(options, ""), options...))
		for _, score := range []int64{0, 777, -998} {
			config := sleeper(fmt.Sprint("c", score+1000))
			config.Linux.Resources = &runtimeapi.LinuxContainerResources{OomScoreAdj: score}
			n.says(n.runContainerOf(pod, config), "cat /proc/1/oom_score_adj", strconv.FormatInt(max(score, lowest), 10))
		}
	}
}

func TestDevicesAreThoseAskedFor(t *testing.T) {
	t.Parallel()
	n := started(t)
	for _, options := range [][]string{nil, {"userns"}} {
		config := sleeper("c")
		config.Devices = []*runtimeapi.Device{{HostPath: "/dev/zero", ContainerPath: "/dev/nothing", Permissions: "rw"}}
		id := n.runContainerOf(n.runPodOf(n.podConfig("p"+strings.Join(options, ""), options...)), config)
		n.says(id, "head -c 3 /dev/nothing | wc -c; test -c /dev/nothing && echo a device", "3\na device")
		n.says(id, "test -e /dev/kmsg || echo no other", "no other")
	}
}

func TestWithoutSELinuxLabelsAreNeitherGivenNorAnObstacle(t *testing.T) {
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
		t.Skip("this node has SELinux")
	}
	t.Parallel()
	n := started(t)
	n.check(os.Mkdir(n.path("volumes/v"), 0o755))
	options := &runtimeapi.SELinuxOption{User: "u", Role: "r", Type: "t", Level: "s0:c1,c2"}
	config := n.podConfig("p", "shared-pid")
	config.Linux.SecurityContext.SelinuxOptions = options
	container := sleeper("c", &runtimeapi.Mount{HostPath: n.path("volumes/v"), ContainerPath: "/data", SelinuxRelabel: true})
	securityContext(container).SelinuxOptions = options
	n.says(n.runContainerOf(n.runPodOf(config), container), "touch /data/x && echo runs", "runs")
	if _, err := unix.Getxattr(n.path("volumes/v"), "security.selinux", nil); err == nil {
		t.Error("the volume got a label")
	}
}
