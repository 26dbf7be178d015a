package ocispec

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
)

// The tables here specify what is refused: a request (added to a valid one), and what the error
// must name.

// node has every feature.
var node = Host{
	Hostname: "node-1", Capabilities: knownCapabilities, CgroupV2: true, AppArmor: true, AppArmorProfile: "pinfold-default",
	SELinux: true, Seccomp: true, OOMScoreAdjMin: -1000, HugepageSizes: []string{"2MB"}, SwapSupported: true,
	Features: Features{RecursiveReadOnly: true, UsernsHostNetwork: true, CDI: true},
}

// bare has no feature.
var bare = Host{Hostname: "node-2"}

const (
	podBase       = `{"metadata": {"name": "web", "namespace": "shop", "uid": "1c3b"}}`
	containerBase = `{"metadata": {"name": "main"}, "image": {"image": "shop:1"}}`
	usernsPod     = `{"linux": {"security_context": {"namespace_options": {"userns_options": {"mode": "POD",
		"uids": [{"host_id": 1000000, "length": 65536}], "gids": [{"host_id": 1000000, "length": 65536}]}}}}}`
)

// parse merges protojson texts; later ones replace fields of earlier ones.
func parse[M proto.Message](t testing.TB, into M, texts ...string) M {
	t.Helper()
	for _, text := range texts {
		if text == "" {
			continue
		}
		m := into.ProtoReflect().New().Interface()
		if err := protojson.Unmarshal([]byte(text), m); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		proto.Merge(into, m)
	}
	return into
}

func podConfig(t testing.TB, texts ...string) PodConfig {
	return ParsePod(parse(t, &runtimeapi.PodSandboxConfig{}, append([]string{podBase}, texts...)...))
}

func containerConfig(t testing.TB, texts ...string) *runtimeapi.ContainerConfig {
	return parse(t, &runtimeapi.ContainerConfig{}, append([]string{containerBase}, texts...)...)
}

// refusal is an invalid request and its fault.
type refusal struct {
	request string
	// field and value are what the error has to name.
	field, value string
}

func (r refusal) check(t *testing.T, err, class error) {
	t.Helper()
	if err == nil {
		t.Fatalf("accepted: %s", r.request)
	}
	if !errors.Is(err, class) {
		t.Errorf("class of %q is not %q", err, class)
	}
	if !strings.HasPrefix(err.Error(), r.field+": ") {
		t.Errorf("%q does not begin with the field %s", err, r.field)
	}
	if !strings.Contains(err.Error(), r.value) {
		t.Errorf("%q does not name the value %s", err, r.value)
	}
}

func sc(text string) string { return `{"linux": {"security_context": {` + text + `}}}` }

func ns(text string) string { return sc(`"namespace_options": {` + text + `}`) }

// TestANameIsNeverMore tries names of a pod that would be more than one name in a file, in the
// arguments of a plugin, or in an identity of several parts.
func TestANameIsNeverMore(t *testing.T) {
	more := []string{
		`a\n1.2.3.4 evil`, `a\rb`, `a b`, `a\tb`, `a\u000bb`, `a\u0085b`, `a\u2028b`, `a\u00a0b`, `a\u0000b`, `a\u001b[2Jb`, `a\u202eb`,
		`a/b`, `a;K8S_POD_NAMESPACE=kube-system`, `a=b`, ` `, `\n`, strings.Repeat("a", 254),
	}
	for _, field := range []string{"name", "namespace", "uid"} {
		for _, name := range more {
			config := podConfig(t, `{"metadata": {"`+field+`": "`+name+`"}}`)
			refusal{name, "metadata." + field, ""}.check(t, ValidateSandbox(node, config), errdefs.ErrInvalidArgument)
		}
	}
	for _, name := range more {
		config := containerConfig(t, `{"metadata": {"name": "`+name+`"}}`)
		refusal{name, "metadata.name", ""}.check(t, ValidateContainer(node, podConfig(t), config), errdefs.ErrInvalidArgument)
	}
	for _, name := range []string{"podsandbox-for-x-1c3b", "kube-apiserver-node.domain", "Under_Score.1", "a:b@c", "größe", strings.Repeat("a", 253)} {
		config := podConfig(t, `{"metadata": {"name": "`+name+`", "namespace": "`+name+`", "uid": "`+name+`"}}`)
		if err := ValidateSandbox(node, config); err != nil {
			t.Error(err)
		}
	}
}

// TestNoPartOfResolvConfIsMore does the same for the configuration of DNS.
func TestNoPartOfResolvConfIsMore(t *testing.T) {
	for _, server := range []string{
		`fe80::1%x\nnameserver 6.6.6.6`, `fe80::1%x y`, `fe80::1%`, `fe80::1%a;b`, `fe80::1%\u2028`, `fe80::1%interface-too-long`, `1.2.3.4\n`, ` 1.2.3.4`,
		`1.2.3.4 5.6.7.8`, `1.2.3.4%eth0`, `1.2.3.4:53`, `[::1]`, ``,
	} {
		refusal{server, "dns_config.servers[0]", ""}.check(t, ValidateSandbox(node, podConfig(t, `{"dns_config": {"servers": ["`+server+`"]}}`)), errdefs.ErrInvalidArgument)
		port := `{"port_mappings": [{"container_port": 80, "host_port": 80, "host_ip": "` + server + `"}]}`
		if server != "" {
			refusal{server, "port_mappings[0].host_ip", ""}.check(t, ValidateSandbox(node, podConfig(t, port)), errdefs.ErrInvalidArgument)
		}
	}
	for _, field := range []string{"searches", "options"} {
		for _, word := range []string{`a\nnameserver 6.6.6.6`, `a b`, `a\tb`, `a\u000bb`, `a\u000cb`, `a\u0085b`, `a\u2029b`, `a\u0000`, `#a`, `;a`, ``} {
			refusal{word, "dns_config." + field + "[0]", ""}.check(t, ValidateSandbox(node, podConfig(t, `{"dns_config": {"`+field+`": ["`+word+`"]}}`)), errdefs.ErrInvalidArgument)
		}
	}
	if err := ValidateSandbox(node, podConfig(t, `{"dns_config": {"servers": ["10.0.0.1", "::1", "fe80::1%eth0.7", "fe80::1%2"],
		"searches": [".", "a.b.", "_srv.under_score"], "options": ["ndots:5", "edns0", "single-request-reopen"]}}`)); err != nil {
		t.Error(err)
	}
}

func TestAPodConfigurationIsRefusedByFieldAndValue(t *testing.T) {
	const options = "linux.security_context.namespace_options"
	long := strings.Repeat("a", 65)
	for _, r := range []refusal{
		{`{"hostname": "a b"}`, "hostname", `"a b"`},
		{`{"hostname": "a\n1.2.3.4 evil"}`, "hostname", `"a\n1.2.3.4 evil"`},
		{`{"hostname": "."}`, "hostname", `"."`},
		{`{"hostname": "-dash"}`, "hostname", `"-dash"`},
		{`{"hostname": "two..dots"}`, "hostname", `"two..dots"`},
		{`{"hostname": "` + long + `"}`, "hostname", "65 bytes"},
		{`{"log_directory": "var/log"}`, "log_directory", `"var/log"`},
		{`{"log_directory": "/var/log/a\nb"}`, "log_directory", `\n`},
		{`{"linux": {"cgroup_parent": "/a\nb"}}`, "linux.cgroup_parent", `\n`},
		{`{"log_directory": "/var/log/../../etc"}`, "log_directory", `"/var/log/../../etc"`},
		{`{"dns_config": {"servers": ["10.0.0.1", "dns.example"]}}`, "dns_config.servers[1]", `"dns.example"`},
		{`{"dns_config": {"searches": ["a\nnameserver 6.6.6.6"]}}`, "dns_config.searches[0]", "6.6.6.6"},
		{`{"dns_config": {"options": [""]}}`, "dns_config.options[0]", `""`},
		{`{"port_mappings": [{"container_port": 70000}]}`, "port_mappings[0].container_port", "70000"},
		{`{"port_mappings": [{"host_port": 80}]}`, "port_mappings[0].container_port", "0"},
		{`{"port_mappings": [{"container_port": 80, "host_port": -1}]}`, "port_mappings[0].host_port", "-1"},
		{`{"port_mappings": [{"container_port": 80, "host_ip": "localhost"}]}`, "port_mappings[0].host_ip", `"localhost"`},
		{`{"port_mappings": [{"container_port": 80, "protocol": 9}]}`, "port_mappings[0].protocol", "9"},
		{`{"linux": {"cgroup_parent": "/a/../b"}}`, "linux.cgroup_parent", `"/a/../b"`},
		{`{"linux": {"sysctls": {"vm.swappiness": "1"}}}`, "linux.sysctls", `"vm.swappiness"`},
		{`{"linux": {"sysctls": {"kernel.hostname": "x"}}}`, "linux.sysctls", `"kernel.hostname"`},
		{`{"linux": {"sysctls": {"net/../vm/swappiness": "1"}}}`, "linux.sysctls", `"net/../vm/swappiness"`},
		{`{"linux": {"sysctls": {"net.ipv4.ping_group_range": "all"}}}`, "linux.sysctls", `"all"`},
		{`{"linux": {"sysctls": {"net.core.somaxconn": "1"}, "security_context": {"namespace_options": {"network": "NODE"}}}}`, "linux.sysctls", `"net.core.somaxconn"`},
		{`{"linux": {"sysctls": {"kernel.sem": "1"}, "security_context": {"namespace_options": {"ipc": "NODE"}}}}`, "linux.sysctls", `"kernel.sem"`},
		{`{"linux": {"sysctls": {"fs.mqueue.msg_max": "1"}, "security_context": {"namespace_options": {"ipc": "NODE"}}}}`, "linux.sysctls", `"fs.mqueue.msg_max"`},
		{`{"linux": {"overhead": {"cpu_quota": "5"}}}`, "linux.overhead.cpu_quota", "5"},
		{`{"linux": {"resources": {"memory_limit_in_bytes": "-5"}}}`, "linux.resources.memory_limit_in_bytes", "-5"},
		{sc(`"run_as_group": {"value": "7"}`), "linux.security_context.run_as_group", "7"},
		{ns(`"network": "CONTAINER"`), options + ".network", "CONTAINER"},
		{ns(`"network": "TARGET"`), options + ".network", "TARGET"},
		{ns(`"ipc": "CONTAINER"`), options + ".ipc", "CONTAINER"},
		{ns(`"pid": "TARGET"`), options + ".pid", "TARGET"},
		{ns(`"pid": 17`), options + ".pid", "17"},
		{ns(`"userns_options": {"mode": "CONTAINER"}`), options + ".userns_options.mode", "CONTAINER"},
		{ns(`"userns_options": {"mode": "TARGET"}`), options + ".userns_options.mode", "TARGET"},
		{ns(`"userns_options": {"mode": "NODE", "uids": [{"host_id": 9, "length": 1}]}`), options + ".userns_options.mode", "NODE"},
		{ns(`"userns_options": {"mode": "POD"}`), options + ".userns_options", "uid mapping"},
		{ns(`"userns_options": {"uids": [{"host_id": 9, "length": 1}]}`), options + ".userns_options", "gid mapping"},
		{ns(`"userns_options": {"uids": [{"host_id": 9, "length": 1}], "gids": [{"host_id": 9, "length": 2}]}`), options + ".userns_options", "uids map 1 IDs, gids 2"},
		{ns(`"userns_options": {"uids": [{"host_id": 0, "length": 1}], "gids": [{"host_id": 9, "length": 1}]}`), options + ".userns_options", "host_id 0"},
		{ns(`"userns_options": {"uids": [{"host_id": 9, "container_id": 1, "length": 1}], "gids": [{"host_id": 9, "length": 1}]}`), options + ".userns_options", "container_id 0"},
		{
			ns(`"userns_options": {"uids": [{"host_id": 1000, "length": 100000}, {"host_id": 2000, "length": 100000}], "gids": [{"host_id": 9, "length": 1}]}`),
			options + ".userns_options", "container_id 0",
		},
		{ns(`"userns_options": {"uids": [{"host_id": 4294901760, "length": 65536}], "gids": [{"host_id": 9, "length": 1}]}`), options + ".userns_options", "4294967295"},
	} {
		t.Run(r.field+" "+r.value, func(t *testing.T) {
			r.check(t, ValidateSandbox(node, podConfig(t, r.request)), errdefs.ErrInvalidArgument)
		})
	}
}

func TestAUserNamespaceCannotBeCombinedWithTheNodesPIDOrIPCNamespace(t *testing.T) {
	for _, name := range []string{"pid", "ipc"} {
		r := refusal{ns(`"` + name + `": "NODE"`), "linux.security_context.namespace_options." + name, "NODE"}
		r.check(t, ValidateSandbox(node, podConfig(t, usernsPod, r.request)), errdefs.ErrInvalidArgument)
	}
}

func TestAUserNamespaceOnTheNodesNetworkIsUpToTheNode(t *testing.T) {
	config := podConfig(t, usernsPod, ns(`"network": "NODE"`))
	if err := ValidateSandbox(node, config); err != nil {
		t.Error(err)
	}
	r := refusal{"", "linux.security_context.namespace_options.network", "NODE"}
	r.check(t, ValidateSandbox(bare, config), errdefs.ErrFailedPrecondition)
}

func TestASandboxNeedsItsMetadata(t *testing.T) {
	err := ValidateSandbox(node, ParsePod(&runtimeapi.PodSandboxConfig{}))
	for _, field := range []string{"metadata.name", "metadata.namespace", "metadata.uid"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%v does not name %s", err, field)
		}
	}
	if !errors.Is(err, errdefs.ErrInvalidArgument) || !errors.Is(ValidateSandbox(node, PodConfig{}), errdefs.ErrInvalidArgument) {
		t.Error("not an invalid argument")
	}
}

func TestPodConfigurationsThatAreRight(t *testing.T) {
	for _, text := range []string{
		"", usernsPod,
		`{"hostname": "` + strings.Repeat("a", 64) + `"}`,
		`{"hostname": "web-0.shop.svc.cluster.local"}`,
		`{"hostname": "web-0.shop.team.svc."}`,
		`{"hostname": "under_score"}`,
		`{"hostname": "_a.b_"}`,
		ns(`"network": "NODE", "pid": "NODE", "ipc": "NODE"`),
		ns(`"userns_options": {"mode": "NODE"}`),
		ns(`"userns_options": {"uids": [{"host_id": 9, "length": 1}, {"container_id": 1, "host_id": 20, "length": 3}], "gids": [{"host_id": 9, "length": 4}]}`),
		`{"port_mappings": [{"container_port": 80, "host_port": 0}, {"container_port": 53, "protocol": "UDP", "host_ip": "::1", "host_port": 53}]}`,
		`{"linux": {"sysctls": {"net.core.somaxconn": "1", "net/ipv4/tcp_syncookies": "0", "kernel.shmmax": "1", "kernel.msgmni": "1", "kernel.sem": "1", "fs.mqueue.msg_max": "1"}}}`,
		`{"linux": {"sysctls": {"net.ipv4.ping_group_range": "1 0"}}}`,
		`{"dns_config": {"servers": ["fe80::1%eth0"], "searches": ["svc.cluster.local", "."], "options": ["ndots:5"]}}`,
	} {
		if err := ValidateSandbox(node, podConfig(t, text)); err != nil {
			t.Errorf("%v in %s", err, text)
		}
	}
}

func TestACgroupParentFitsTheNodesDriver(t *testing.T) {
	systemd := Host{SystemdCgroup: true}
	for _, c := range []struct {
		host         Host
		parent, want string // want "" means refused
	}{
		{bare, "", "/pinfold-pod/id"},
		{bare, "/kubepods/pod1", "/kubepods/pod1/id"},
		{bare, "kubepods", "/kubepods/id"},
		{bare, "/kubepods.slice", "/kubepods.slice/id"},
		{systemd, "", "pinfold.slice:cri-containerd:id"},
		{systemd, "system.slice", "system.slice:cri-containerd:id"},
		{systemd, "/kubepods.slice/kubepods-pod1.slice", "kubepods-pod1.slice:cri-containerd:id"},
		{systemd, "-.slice", "-.slice:cri-containerd:id"},
		{systemd, "/kubepods/pod1", ""},
		{systemd, ".slice", ""},
		{systemd, "a--b.slice", ""},
		{systemd, "a:b.slice", ""},
	} {
		config := podConfig(t)
		config.Linux = &runtimeapi.LinuxPodSandboxConfig{CgroupParent: c.parent}
		err := ValidateSandbox(c.host, config)
		if c.want == "" {
			refusal{c.parent, "linux.cgroup_parent", c.parent}.check(t, err, errdefs.ErrInvalidArgument)
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", c.parent, err)
		}
		if got := (cgroup.Layout{Systemd: c.host.SystemdCgroup, Scope: cgroup.ScopePrefix}).Pod(c.parent, "pod").Container("id"); got != c.want {
			t.Errorf("parent %q: got %q, want %q", c.parent, got, c.want)
		}
	}
}
