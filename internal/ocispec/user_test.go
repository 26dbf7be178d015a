package ocispec

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/pin"
)

const (
	passwdFile = `root:x:0:0:root:/root:/bin/sh
# comment:x:5:5

alice:x:1000:1000:,:/home/alice:/bin/sh
bob:x:1001:100::/:/bin/sh
broken:x:none:none::/:/bin/sh
huge:x:99999999999:1::/:/bin/sh
short:x:7
far:x:70000:70000::/:/bin/sh
`
	groupFile = `root:x:0:
wheel:x:10:root,alice
alice:x:1000:
staff:x:50000:alice
users:x:100:
outside:x:80000:bob
broken:x:none:alice
`
)

func TestTheUserIsResolvedInTheImage(t *testing.T) {
	for _, c := range []struct {
		image, context string
		want           string // uid:gid groups
	}{
		{"", "", "0:0 [0 10]"},
		{"alice", "", "1000:1000 [10 1000 50000]"},
		{"1000", "", "1000:1000 [10 1000 50000]"},
		{"bob", "", "1001:100 [100 80000]"},
		{"4711", "", "4711:0 [0]"},
		{"alice:users", "", "1000:100 [10 100 50000]"},
		{"alice:7", "", "1000:7 [7 10 50000]"},
		{"4711:4712", "", "4711:4712 [4712]"},
		{":users", "", "0:100 [10 100]"},
		{"bob", `"run_as_user": {"value": "1000"}`, "1000:1000 [10 1000 50000]"},
		{"bob", `"run_as_user": {"value": "0"}`, "0:0 [0 10]"},
		{"bob", `"run_as_user": {"value": "4294967294"}`, "4294967294:0 [0]"},
		{"bob", `"run_as_username": "alice"`, "1000:1000 [10 1000 50000]"},
		{"bob", `"run_as_username": "alice", "run_as_group": {"value": "7"}`, "1000:7 [7 10 50000]"},
		{"bob", `"run_as_user": {"value": "1001"}, "run_as_group": {"value": "7"}`, "1001:7 [7 80000]"},
		{"alice", `"supplemental_groups": ["1234", "10"]`, "1000:1000 [10 1000 1234 50000]"},
		{"alice", `"supplemental_groups": ["1234"], "supplemental_groups_policy": "Strict"`, "1000:1000 [1000 1234]"},
		{"alice", `"supplemental_groups_policy": "Strict"`, "1000:1000 [1000]"},
	} {
		r := request(t, "", sc(c.context))
		r.Image.User, r.Passwd, r.Group = c.image, []byte(passwdFile), []byte(groupFile)
		u, err := EffectiveUser(r)
		got := fmt.Sprintf("%d:%d %v", u.UID, u.GID, u.AdditionalGids)
		if err != nil || got != c.want {
			t.Errorf("image %q, context %s: got %s (%v), want %s", c.image, c.context, got, err, c.want)
		}
	}
}

func TestAnImageWithoutPasswdHasNumbersOnly(t *testing.T) {
	r := request(t, "", "")
	for image, want := range map[string]string{"": "0:0 [0]", "5": "5:0 [0]", "5:6": "5:6 [6]"} {
		r.Image.User = image
		u, err := EffectiveUser(r)
		if got := fmt.Sprintf("%d:%d %v", u.UID, u.GID, u.AdditionalGids); err != nil || got != want {
			t.Errorf("%q: got %s (%v), want %s", image, got, err, want)
		}
	}
}

func TestAFileThatIsNotNeededIsNoFault(t *testing.T) {
	r := request(t, "", "")
	r.PasswdErr, r.GroupErr = errors.New("passwd is a FIFO"), errors.New("group is a FIFO")
	for image, want := range map[string]string{"": "0:0 [0]", "0": "0:0 [0]", "5": "5:0 [0]", "5:6": "5:6 [6]"} {
		r.Image.User = image
		u, err := EffectiveUser(r)
		if got := fmt.Sprintf("%d:%d %v", u.UID, u.GID, u.AdditionalGids); err != nil || got != want {
			t.Errorf("%q: got %s (%v), want %s", image, got, err, want)
		}
	}
	r.Config.Envs = nil
	if env := build(t, node, r).Process.Env; !slices.Contains(env, "HOME=/") {
		t.Errorf("the runtime is left to look for HOME in what cannot be read: %v", env)
	}
	r.Config.Envs = []*runtimeapi.KeyValue{{Key: "HOME", Value: []byte("/own")}}
	if env := build(t, node, r).Process.Env; !slices.Contains(env, "HOME=/own") {
		t.Errorf("the container's HOME is lost: %v", env)
	}
	for image, want := range map[string]string{"alice": "passwd is a FIFO", "alice:5": "passwd is a FIFO", "5:staff": "group is a FIFO"} {
		r.Image.User = image
		_, err := EffectiveUser(r)
		refusal{image, "image user", want}.check(t, err, errdefs.ErrInvalidArgument)
	}
}

// Hostile files use neither much memory nor much time. Each is as long as the part of it that is
// read.
func TestAUserDatabaseOfAnyContentIsRead(t *testing.T) {
	const size = 4 << 20
	for name, text := range map[string]string{
		"one line": strings.Repeat("x", size), "colons": strings.Repeat(":", size), "NULs": strings.Repeat("\x00", size),
		"newlines": strings.Repeat("\n", size), "members": "g:x:1:" + strings.Repeat(",", size), "short lines": strings.Repeat("a:::\n", size/5),
	} {
		r := request(t, "", "")
		r.Passwd, r.Group, r.Image.User = []byte(text+"\nalice b:x:1000:1000::/:\n"), []byte(text+"\nstaff:x:7:alice b\n"), "alice b:staff"
		if u, err := EffectiveUser(r); err != nil || u.UID != 1000 || u.GID != 7 {
			t.Errorf("%s: %v %v", name, u, err)
		}
	}
	r := request(t, "", "")
	r.Passwd, r.Image.User = []byte("alice:x:5:5::/:\n"), "alice"
	var groups strings.Builder
	for gid := range maxGroups + 1 {
		fmt.Fprintf(&groups, "g:x:%d:alice\n", gid)
	}
	r.Group = []byte(groups.String())
	_, err := EffectiveUser(r)
	refusal{"", "image user", "65537 groups"}.check(t, err, errdefs.ErrInvalidArgument)
}

func TestAUserThatDoesNotExistIsRefusedNeverRoot(t *testing.T) {
	for _, c := range []struct{ image, context, field, value string }{
		{"eve", "", "image user", `"eve"`},
		{"alice:eves", "", "image user", `"eves"`},
		{"broken", "", "image user", `"broken"`},
		{"huge", "", "image user", `"huge"`},
		{"short", "", "image user", `"short"`},
		{"4294967295", "", "image user", "4294967295"},
		{"99999999999", "", "image user", "99999999999"},
		{"-1", "", "image user", `"-1"`},
		{"alice", `"run_as_username": "eve"`, "linux.security_context.run_as_username", `"eve"`},
		{"alice", `"run_as_username": "4711"`, "linux.security_context.run_as_username", `"4711"`},
		{"alice", `"run_as_username": "alice:users"`, "linux.security_context.run_as_username", `"alice:users"`},
	} {
		r := request(t, "", sc(c.context))
		r.Image.User, r.Passwd, r.Group = c.image, []byte(passwdFile), []byte(groupFile)
		_, err := EffectiveUser(r)
		refusal{c.image + c.context, c.field, c.value}.check(t, err, errdefs.ErrInvalidArgument)
	}
}

func TestAnImagesUserOutsideThePodsUserNamespaceIsRefusedWithItsRange(t *testing.T) {
	for image, value := range map[string]string{"far": "uid 70000", "70000": "uid 70000", "bob": "gid 80000"} {
		r := request(t, usernsPod, "")
		r.Image.User, r.Passwd, r.Group = image, []byte(passwdFile), []byte(groupFile)
		_, err := EffectiveUser(r)
		refusal{image, "image user", value}.check(t, err, errdefs.ErrInvalidArgument)
		refusal{image, "image user", "0-65535"}.check(t, err, errdefs.ErrInvalidArgument)
		if _, err := Build(node, r); err == nil {
			t.Errorf("%s: built", image)
		}
	}
}

func TestCapabilitiesAreAddedAndDroppedByName(t *testing.T) {
	without := func(names ...string) []string {
		return slices.DeleteFunc(slices.Clone(defaultCapabilities), func(n string) bool { return slices.Contains(names, n) })
	}
	for _, c := range []struct {
		capabilities, other string
		want                []string
	}{
		{``, ``, defaultCapabilities},
		{`"add_capabilities": ["net_admin"]`, ``, append(without(), "CAP_NET_ADMIN")},
		{`"drop_capabilities": ["CAP_CHOWN", "KILL"]`, ``, without("CAP_CHOWN", "CAP_KILL")},
		{`"drop_capabilities": ["ALL"]`, ``, nil},
		{`"drop_capabilities": ["ALL"], "add_capabilities": ["CHOWN"]`, ``, []string{"CAP_CHOWN"}},
		{`"add_capabilities": ["ALL"]`, ``, knownCapabilities},
		{`"add_capabilities": ["ALL"], "drop_capabilities": ["CHOWN"]`, ``, knownCapabilities[1:]},
		{`"add_capabilities": ["ALL"], "drop_capabilities": ["ALL"]`, ``, nil},
		{`"drop_capabilities": ["ALL"]`, `"privileged": true`, knownCapabilities},
		{`"drop_capabilities": ["ALL"], "add_ambient_capabilities": ["KILL"]`, ``, []string{"CAP_KILL"}},
	} {
		r := request(t, sc(`"privileged": true`), `{"linux": {"security_context": {"capabilities": {`+c.capabilities+`}}}}`)
		if c.other != "" {
			r.Config.Linux.SecurityContext.Privileged = true
		}
		got := build(t, node, r).Process.Capabilities
		want := inOrder(c.want)
		if !slices.Equal(got.Bounding, want) || !slices.Equal(got.Effective, want) || !slices.Equal(got.Permitted, want) {
			t.Errorf("%s %s: got %v, want %v", c.capabilities, c.other, got.Bounding, want)
		}
		if !slices.Equal(got.Inheritable, got.Ambient) || (len(got.Ambient) > 0) != strings.Contains(c.capabilities, "ambient") {
			t.Errorf("%s: inheritable %v, ambient %v", c.capabilities, got.Inheritable, got.Ambient)
		}
	}
}

func TestCapabilitiesThatTheDaemonLacksAreRefusedByNameAndOtherwiseLeftOut(t *testing.T) {
	h := Host{Capabilities: []string{"CAP_CHOWN", "CAP_KILL", "CAP_NET_ADMIN"}}
	if got := build(t, h, request(t, "", "")).Process.Capabilities.Bounding; !slices.Equal(got, []string{"CAP_CHOWN", "CAP_KILL"}) {
		t.Errorf("the defaults are %v", got)
	}
	all := sc(`"capabilities": {"add_capabilities": ["ALL"]}`)
	if got := build(t, h, request(t, "", all)).Process.Capabilities.Bounding; !slices.Equal(got, h.Capabilities) {
		t.Errorf("all are %v", got)
	}
	named := sc(`"capabilities": {"add_capabilities": ["SYS_RESOURCE"]}`)
	_, err := Build(h, request(t, "", named))
	refusal{named, "linux.security_context.capabilities.add_capabilities", `"SYS_RESOURCE"`}.check(t, err, errdefs.ErrFailedPrecondition)
	if got := build(t, h, request(t, usernsPod, named)).Process.Capabilities.Bounding; !slices.Contains(got, "CAP_SYS_RESOURCE") {
		t.Errorf("in a user namespace, where the daemon's own do not count: %v", got)
	}
}

func TestTheStopSignalIsTheContainersOrTheImagesOrTERM(t *testing.T) {
	for _, c := range []struct {
		container runtimeapi.Signal
		image     string
		want      unix.Signal
	}{
		{0, "", unix.SIGTERM},
		{0, "SIGQUIT", unix.SIGQUIT},
		{0, "quit", unix.SIGQUIT},
		{0, "9", unix.SIGKILL},
		{0, "RTMIN+3", 37},
		{0, "SIGRTMAX-1", 63},
		{0, "SIGRTMIN", 34},
		{0, "SIGPOLL", unix.SIGIO},
		{runtimeapi.Signal_SIGNAL_SIGUSR1, "SIGQUIT", unix.SIGUSR1},
		{runtimeapi.Signal_SIGNAL_SIGCLD, "", unix.SIGCHLD},
		{runtimeapi.Signal_SIGNAL_SIGIOT, "", unix.SIGABRT},
		{runtimeapi.Signal_SIGNAL_SIGRTMINPLUS15, "", 49},
		{runtimeapi.Signal_SIGNAL_SIGRTMAXMINUS14, "", 50},
		{runtimeapi.Signal_SIGNAL_SIGRTMAX, "", 64},
		{runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT, "nonsense", 0},
		{0, "0", 0},
		{0, "65", 0},
		{0, "RTMIN+31", 0},
		{0, "RTMIN+x", 0},
		{99, "", 0},
	} {
		got, err := StopSignal(&runtimeapi.ContainerConfig{StopSignal: c.container}, imagespec.ImageConfig{StopSignal: c.image})
		want := cmp.Or(c.want, unix.SIGTERM) // 0: an error, and the signal is SIGTERM
		if got != want || (err != nil) != (c.want == 0) {
			t.Errorf("%s over %q: got %d (%v), want %d", c.container, c.image, got, err, c.want)
		}
	}
	for number := range runtimeapi.Signal_name {
		if _, err := StopSignal(&runtimeapi.ContainerConfig{StopSignal: runtimeapi.Signal(number)}, imagespec.ImageConfig{}); err != nil {
			t.Errorf("CRI's signal %d: %v", number, err)
		}
	}
}

func TestEverySignalOfTheKernelHasItsNameInCRI(t *testing.T) {
	for number, want := range map[unix.Signal]runtimeapi.Signal{
		unix.SIGTERM: runtimeapi.Signal_SIGNAL_SIGTERM, unix.SIGCHLD: runtimeapi.Signal_SIGNAL_SIGCHLD,
		unix.SIGIO: runtimeapi.Signal_SIGNAL_SIGIO, unix.SIGABRT: runtimeapi.Signal_SIGNAL_SIGABRT,
		34: runtimeapi.Signal_SIGNAL_SIGRTMIN, 49: runtimeapi.Signal_SIGNAL_SIGRTMINPLUS15,
		50: runtimeapi.Signal_SIGNAL_SIGRTMAXMINUS14, 64: runtimeapi.Signal_SIGNAL_SIGRTMAX,
		0: runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT, 32: runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT,
	} {
		if got := CRISignal(number); got != want {
			t.Errorf("%d is %v, want %v", number, got, want)
		}
	}
	for number := unix.Signal(1); number <= highest; number++ {
		if unix.SignalName(number) != "" && CRISignal(number) == runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT {
			t.Errorf("%d (%s) has no name", number, unix.SignalName(number))
		}
	}
}

func TestSysctlsAreThePodsWithTheNodesNumbers(t *testing.T) {
	for _, c := range []struct{ pod, want string }{
		{"", "net.ipv4.ip_unprivileged_port_start=0 net.ipv4.ping_group_range=0 2147483647"},
		{usernsPod, "net.ipv4.ip_unprivileged_port_start=0 net.ipv4.ping_group_range=1000000 1065535"},
		{ns(`"network": "NODE"`), ""},
		{`{"linux": {"sysctls": {"net/ipv4/ip_unprivileged_port_start": "1024", "net.ipv4.ping_group_range": "1 0", "kernel.sem": "1 2 3 4"}}}`, "kernel.sem=1 2 3 4 net.ipv4.ip_unprivileged_port_start=1024 net.ipv4.ping_group_range=1 0"},
	} {
		var got []string
		for _, s := range Sysctls(podConfig(t, c.pod)) {
			got = append(got, s.Name+"="+s.Value)
			if want := pin.Net; strings.HasPrefix(s.Name, "net.") && s.Kind != want || s.Name == "kernel.sem" && s.Kind != pin.IPC {
				t.Errorf("%s is in %s", s.Name, s.Kind)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: got %v, want %s", c.pod, got, c.want)
		}
	}
	config := podConfig(t, usernsPod, `{"linux": {"sysctls": {"net.ipv4.ping_group_range": "5 10"}}}`)
	for _, s := range Sysctls(config) {
		if s.Name == pingGroups && s.Value != "1000005 1000010" {
			t.Errorf("a range of the pod's groups became %q", s.Value)
		}
	}
	config.Linux.Sysctls[pingGroups] = "0 70000"
	refusal{"", "linux.sysctls", `"0 70000"`}.check(t, ValidateSandbox(node, config), errdefs.ErrInvalidArgument)
}
