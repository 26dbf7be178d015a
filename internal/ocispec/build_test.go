package ocispec

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// request is a container in a pod, with invented host paths.
func request(t testing.TB, pod, container string) Container {
	t.Helper()
	c := Container{
		ID:      "c1",
		Sandbox: Sandbox{ID: "s1", Config: podConfig(t, ns(`"pid": "CONTAINER"`), pod)},
		Config:  containerConfig(t, container),
		Image:   imagespec.ImageConfig{Entrypoint: []string{"/bin/shop"}},
		Rootfs:  "/rootfs",
	}
	fakePaths(&c)
	return c
}

// fakePaths sets the fields that package pod sets.
func fakePaths(c *Container) {
	options := c.Sandbox.Config.namespaces()
	if c.Sandbox.Config.Mappings() != nil {
		c.Sandbox.Namespaces.User = "/ns/user"
	}
	if options.GetNetwork() != runtimeapi.NamespaceMode_NODE {
		c.Sandbox.Namespaces.Net, c.Sandbox.Namespaces.UTS = "/ns/net", "/ns/uts"
	}
	if options.GetIpc() != runtimeapi.NamespaceMode_NODE {
		c.Sandbox.Namespaces.IPC = "/ns/ipc"
	}
	if options.GetPid() == runtimeapi.NamespaceMode_POD {
		c.Sandbox.Namespaces.PID = "/ns/pid"
	}
	for range c.Config.GetMounts() {
		c.MountSources = append(c.MountSources, "/source")
	}
}

func build(t testing.TB, h Host, c Container) *specs.Spec {
	t.Helper()
	s, err := Build(h, c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCommandAndArgsFollowKubernetes(t *testing.T) {
	for _, c := range []struct {
		container       string
		entrypoint, cmd []string
		want            string // "" means refused
	}{
		{``, []string{"e"}, []string{"c"}, "e c"},
		{`{"command": ["x"]}`, []string{"e"}, []string{"c"}, "x"},
		{`{"args": ["y"]}`, []string{"e"}, []string{"c"}, "e y"},
		{`{"command": ["x"], "args": ["y"]}`, []string{"e"}, []string{"c"}, "x y"},
		{``, nil, []string{"c"}, "c"},
		{`{"args": ["y"]}`, nil, nil, "y"},
		{``, nil, nil, ""},
		{`{"command": [""]}`, []string{"e"}, nil, ""},
	} {
		r := request(t, "", c.container)
		r.Image = imagespec.ImageConfig{Entrypoint: c.entrypoint, Cmd: c.cmd}
		s, err := Build(node, r)
		if c.want == "" {
			refusal{c.container, "command", `neither the container nor its image has a command`}.check(t, err, errdefs.ErrInvalidArgument)
			continue
		}
		if err != nil || strings.Join(s.Process.Args, " ") != c.want {
			t.Errorf("%s with image %v %v: got %v (%v), want %s", c.container, c.entrypoint, c.cmd, s, err, c.want)
		}
	}
}

func TestTheEnvironmentIsTheContainersOverTheImagesOverTheDefaults(t *testing.T) {
	c := request(t, `{"hostname": "web-0"}`, `{"tty": true, "envs": [{"key": "B", "value": "Mg=="}, {"key": "A", "value": ""}, {"key": "TERM", "value": "dnVt"}]}`)
	c.Image.Env = []string{"A=1", "B=1", "C=1", "no assignment", "=nameless", "bad=\xff"}
	got := build(t, node, c).Process.Env
	want := []string{"PATH=" + defaultPath, "HOSTNAME=web-0", "TERM=vum", "A=", "B=2", "C=1"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTheWorkingDirectoryIsTheContainersOrTheImagesOrTheRoot(t *testing.T) {
	for _, c := range []struct{ container, image, want string }{
		{"", "", "/"},
		{"", "/srv", "/srv"},
		{"", "relative", "/relative"},
		{`{"working_dir": "/app/"}`, "/srv", "/app"},
	} {
		r := request(t, "", c.container)
		r.Image.WorkingDir = c.image
		if got := build(t, node, r).Process.Cwd; got != c.want {
			t.Errorf("%s over %q: got %q, want %q", c.container, c.image, got, c.want)
		}
	}
}

func TestANamespaceThatIsNotThereIsNeverReplacedByTheNodes(t *testing.T) {
	for name, forget := range map[string]func(*Container){
		"user":    func(c *Container) { c.Sandbox.Namespaces.User = "" },
		"network": func(c *Container) { c.Sandbox.Namespaces.Net = "" },
		"ipc":     func(c *Container) { c.Sandbox.Namespaces.IPC = "" },
		"pid":     func(c *Container) { c.Sandbox.Namespaces.PID = "" },
	} {
		c := request(t, usernsPod, "")
		c.Sandbox.Config.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
		c.Sandbox.Namespaces.PID = "/ns/pid"
		build(t, node, c)
		forget(&c)
		_, err := Build(node, c)
		if !errors.Is(err, errdefs.ErrFailedPrecondition) || !strings.Contains(err.Error(), "pod's "+name+" namespace") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestThePIDNamespaceFollowsTheMode(t *testing.T) {
	for _, c := range []struct{ pod, container, want string }{
		{`"pid": "POD"`, ``, "/ns/pid"},
		{`"pid": "CONTAINER"`, ``, "new"},
		{`"pid": "NODE"`, ``, "none"},
		{`"pid": "NODE"`, `"pid": "NODE"`, "none"},
		{`"pid": "POD"`, `"pid": "CONTAINER"`, "new"},
		{`"pid": "CONTAINER"`, `"pid": "POD"`, "new"}, // POD is the zero value, so it may mean "not given"
		{`"pid": "CONTAINER"`, `"pid": "TARGET", "target_id": "c0"`, "/ns/target"},
	} {
		r := request(t, "", ns(c.container))
		r.Sandbox.Config = podConfig(t, ns(c.pod))
		fakePaths(&r)
		r.TargetPID = "/ns/target"
		got := "none"
		for _, ns := range build(t, node, r).Linux.Namespaces {
			if ns.Type == specs.PIDNamespace {
				if got = ns.Path; got == "" {
					got = "new"
				}
			}
		}
		if got != c.want {
			t.Errorf("container %s in pod %s: got %s, want %s", c.container, c.pod, got, c.want)
		}
	}
}

func TestAContainersMountReplacesADefaultOneAtItsPlace(t *testing.T) {
	for _, c := range []struct{ path, gone, kept string }{
		{"/dev/shm", "", "/dev/pts /dev/mqueue /dev"},
		{"/dev", "/dev/shm /dev/pts /dev/mqueue", "/sys /proc"},
		{"/sys", "/sys/fs/cgroup", "/dev"},
		{"/sys/fs/cgroup", "", "/sys"},
		{"/etc", "", "/etc/hosts /etc/hostname /etc/resolv.conf"},
		{"/etc/hosts", "", "/etc/hostname /etc/resolv.conf"},
		{"/development", "", "/dev /dev/shm"},
	} {
		r := request(t, "", mount(`"container_path": "`+c.path+`", "host_path": "/v"`))
		r.Sandbox.Files = Files{Hostname: "/f/hostname", Hosts: "/f/hosts", ResolvConf: "/f/resolv.conf"}
		at := map[string][]string{}
		depthBefore := 0
		for _, m := range build(t, node, r).Mounts {
			at[m.Destination] = append(at[m.Destination], m.Source)
			if depth(m.Destination) < depthBefore {
				t.Errorf("%s comes after what is beneath it", m.Destination)
			}
			depthBefore = depth(m.Destination)
		}
		if !slices.Equal(at[c.path], []string{"/source"}) {
			t.Errorf("%s: mounted from %v", c.path, at[c.path])
		}
		for _, gone := range strings.Fields(c.gone) {
			if at[gone] != nil {
				t.Errorf("with %s, %s is still mounted", c.path, gone)
			}
		}
		for _, kept := range strings.Fields(c.kept) {
			if len(at[kept]) != 1 {
				t.Errorf("with %s, %s is mounted from %v", c.path, kept, at[kept])
			}
		}
	}
}

func TestAMountWhoseHostSideIsNotKnownIsNotBuilt(t *testing.T) {
	c := request(t, "", mount(`"container_path": "/a", "host_path": "/v"`))
	c.MountSources = nil
	_, err := Build(node, c)
	refusal{"", "mounts[0]", `"/a"`}.check(t, err, errdefs.ErrFailedPrecondition)
}

func TestPathsAreMaskedAsTheSecurityContextSays(t *testing.T) {
	for _, c := range []struct {
		container        string
		masked, readonly []string
	}{
		{``, DefaultMaskedPaths(), DefaultReadonlyPaths()},
		{sc(``), nil, nil}, // procMount: Unmasked
		{sc(`"masked_paths": ["/proc/kcore"], "readonly_paths": ["/proc/sys"]`), []string{"/proc/kcore"}, []string{"/proc/sys"}},
		{sc(`"privileged": true, "masked_paths": ["/proc/kcore"]`), nil, nil},
	} {
		s := build(t, node, request(t, sc(`"privileged": true`), c.container))
		if !slices.Equal(s.Linux.MaskedPaths, c.masked) || !slices.Equal(s.Linux.ReadonlyPaths, c.readonly) {
			t.Errorf("%s: masked %v, read-only %v", c.container, s.Linux.MaskedPaths, s.Linux.ReadonlyPaths)
		}
	}
}

func TestSeccompFollowsTheProfile(t *testing.T) {
	const custom = `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_ERRNO"}]}`
	for _, c := range []struct{ container, want, file string }{
		{``, "none", ""},
		{sc(`"seccomp": {"profile_type": "Unconfined"}`), "none", ""},
		{sc(`"seccomp": {"profile_type": "RuntimeDefault"}`), "SCMP_ACT_ERRNO", ""},
		{sc(`"seccomp": {"profile_type": "Localhost", "localhost_ref": "/p.json"}`), "SCMP_ACT_ALLOW", "/p.json"},
		{sc(`"seccomp_profile_path": "runtime/default"`), "SCMP_ACT_ERRNO", ""},
		{sc(`"seccomp_profile_path": "unconfined"`), "none", ""},
		{sc(`"seccomp_profile_path": "localhost//p.json"`), "SCMP_ACT_ALLOW", "/p.json"},
		{sc(`"privileged": true, "seccomp": {"profile_type": "Localhost", "localhost_ref": "/p.json"}`), "none", ""},
	} {
		r := request(t, sc(`"privileged": true`), c.container)
		r.SeccompProfile = []byte(custom)
		got := "none"
		if filter := build(t, node, r).Linux.Seccomp; filter != nil {
			got = string(filter.DefaultAction)
		}
		if got != c.want || SeccompFile(r.Config) != c.file {
			t.Errorf("%s: got %s and file %q, want %s", c.container, got, SeccompFile(r.Config), c.want)
		}
	}
}

func TestASeccompProfileThatCannotBeReadIsRefusedByName(t *testing.T) {
	r := request(t, "", sc(`"seccomp": {"profile_type": "Localhost", "localhost_ref": "/p.json"}`))
	_, err := Build(node, r)
	refusal{"", "linux.security_context.seccomp.localhost_ref", `"/p.json"`}.check(t, err, errdefs.ErrFailedPrecondition)
	r.SeccompProfile = []byte("{")
	_, err = Build(node, r)
	refusal{"", "linux.security_context.seccomp.localhost_ref", `"/p.json"`}.check(t, err, errdefs.ErrInvalidArgument)
}

func TestAppArmorFollowsTheProfile(t *testing.T) {
	for container, want := range map[string]string{
		``: "pinfold-default",
		sc(`"apparmor": {"profile_type": "RuntimeDefault"}`):                                  "pinfold-default",
		sc(`"apparmor": {"profile_type": "Unconfined"}`):                                      "",
		sc(`"apparmor": {"profile_type": "Localhost", "localhost_ref": "web"}`):               "web",
		sc(`"apparmor": {"profile_type": "Localhost", "localhost_ref": "localhost/web"}`):     "web",
		sc(`"apparmor_profile": "localhost/web"`):                                             "web",
		sc(`"apparmor_profile": "localhost/old", "apparmor": {"profile_type": "Unconfined"}`): "",
		sc(`"privileged": true`): "",
		sc(`"privileged": true, "apparmor": {"profile_type": "RuntimeDefault"}`):                           "",
		sc(`"privileged": true, "apparmor": {"profile_type": "Localhost", "localhost_ref": "restrained"}`): "restrained",
	} {
		if got := build(t, node, request(t, sc(`"privileged": true`), container)).Process.ApparmorProfile; got != want {
			t.Errorf("%s: got %q, want %q", container, got, want)
		}
	}
}

func TestSELinuxSeparatesPodsByCategories(t *testing.T) {
	one, two := request(t, "", ""), request(t, "", "")
	two.Sandbox.ID = "s2"
	s1, s2 := build(t, node, one), build(t, node, two)
	if s1.Process.SelinuxLabel == s2.Process.SelinuxLabel || !strings.HasPrefix(s1.Process.SelinuxLabel, "system_u:system_r:container_t:s0:c") {
		t.Errorf("labels %q, %q", s1.Process.SelinuxLabel, s2.Process.SelinuxLabel)
	}
	level := strings.TrimPrefix(s1.Process.SelinuxLabel, "system_u:system_r:container_t:")
	if s1.Linux.MountLabel != "system_u:object_r:container_file_t:"+level {
		t.Errorf("files of %q are %q", s1.Process.SelinuxLabel, s1.Linux.MountLabel)
	}
	if s := build(t, bare, one); s.Process.SelinuxLabel != "" {
		t.Errorf("label %q without SELinux", s.Process.SelinuxLabel)
	}
}

func TestALimitIsNeverAboveWhatTheDaemonMayGive(t *testing.T) {
	h := bare
	h.OOMScoreAdjMin = -5
	h.RlimitCeilings = map[string]uint64{"RLIMIT_NOFILE": 20000, "RLIMIT_STACK": 4096, "RLIMIT_CORE": unlimited}
	s := build(t, h, request(t, "", `{"linux": {"resources": {"oom_score_adj": "-998"}}}`))
	got := map[string]rlimit{}
	for _, limit := range s.Process.Rlimits {
		got[limit.Type] = rlimit{limit.Soft, limit.Hard}
	}
	for name, want := range map[string]rlimit{
		"RLIMIT_NOFILE": {20000, 20000}, "RLIMIT_STACK": {4096, 4096}, "RLIMIT_CORE": {unlimited, unlimited}, "RLIMIT_MEMLOCK": {8 << 20, 8 << 20},
	} {
		if got[name] != want {
			t.Errorf("%s: got %v, want %v", name, got[name], want)
		}
	}
	if len(got) != 16 {
		t.Errorf("%d limits are given, and there are 16", len(got))
	}
	if *s.Process.OOMScoreAdj != -5 {
		t.Errorf("oom_score_adj %d", *s.Process.OOMScoreAdj)
	}
}

func TestMemoryWithoutASwapLimitGetsNoSwap(t *testing.T) {
	for _, c := range []struct {
		swap        bool
		limit, more int64
		want        string
	}{
		{true, 0, 0, "null"},
		{true, 100, 0, `{"limit":100,"swap":100}`},
		{true, 100, 300, `{"limit":100,"swap":300}`},
		{true, 100, -1, `{"limit":100,"swap":-1}`},
		{false, 100, 0, `{"limit":100}`},
		{false, 100, 100, `{"limit":100}`},
	} {
		r, err := Resources(Host{SwapSupported: c.swap}, &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: c.limit, MemorySwapLimitInBytes: c.more})
		if err != nil {
			t.Fatal(err)
		}
		got, _ := json.Marshal(r.Memory)
		if string(got) != c.want {
			t.Errorf("limit %d, swap %d (supported: %t): got %s, want %s", c.limit, c.more, c.swap, got, c.want)
		}
	}
}

func TestExecIsTheContainersProcessWithAnotherCommand(t *testing.T) {
	base := build(t, node, request(t, "", sc(`"run_as_user": {"value": "7"}, "no_new_privs": true`)))
	before, _ := json.Marshal(base)
	p, err := Exec(base, ExecOptions{Cmd: []string{"sh", "-c", "true"}, TTY: true})
	if err != nil {
		t.Fatal(err)
	}
	if p.User.UID != 7 || !p.NoNewPrivileges || !p.Terminal || !slices.Contains(p.Env, "TERM=xterm") || p.Args[2] != "true" {
		t.Errorf("got %+v", p)
	}
	p.Env[0], p.Capabilities.Bounding = "changed", nil
	if after, _ := json.Marshal(base); string(before) != string(after) {
		t.Error("the container's configuration was changed")
	}
	for _, cmd := range [][]string{nil, {""}, {"a\x00"}, {"a", "\xff"}} {
		if _, err := Exec(base, ExecOptions{Cmd: cmd}); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q: %v", cmd, err)
		}
	}
}

func TestInitHasNoRightsAndOnlyThePodsNamespaces(t *testing.T) {
	c := request(t, usernsPod, "")
	c.Sandbox.Namespaces.PID = ""
	s := Init(node, c.Sandbox, InitFiles{Rootfs: "/r", Pinder: "/usr/bin/pinder"})
	var kinds []string
	for _, ns := range s.Linux.Namespaces {
		kinds = append(kinds, string(ns.Type)+ns.Path)
	}
	if got := strings.Join(kinds, " "); got != "user/ns/user network/ns/net ipc/ns/ipc uts/ns/uts pid mount cgroup" {
		t.Errorf("namespaces %s", got)
	}
	if len(s.Process.Capabilities.Bounding) != 0 || !s.Process.NoNewPrivileges || s.Linux.Seccomp == nil || !s.Root.Readonly {
		t.Errorf("too many rights: %+v", s.Process)
	}
}
