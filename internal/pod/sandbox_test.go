package pod

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/handler"
	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/network"
	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/rootfs"
	"github.com/pinfold-run/pinfold/pin"
)

const (
	nodes = runtimeapi.NamespaceMode_NODE
	pods  = runtimeapi.NamespaceMode_POD
)

func recordWith(options *runtimeapi.NamespaceOption) *SandboxRecord {
	return &SandboxRecord{ID: "s", Handler: "runc", Config: ocispec.ParsePod(&runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "web", Namespace: "n", Uid: "u", Attempt: 2},
		Linux:    &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: options}},
	})}
}

func userns() *runtimeapi.UserNamespace {
	return &runtimeapi.UserNamespace{
		Mode: pods, Uids: []*runtimeapi.IDMapping{{HostId: 100000, Length: 1000}}, Gids: []*runtimeapi.IDMapping{{HostId: 200000, Length: 1000}},
	}
}

func TestAPodHasTheNamespacesThatItsOptionsSay(t *testing.T) {
	for _, c := range []struct {
		name    string
		options *runtimeapi.NamespaceOption
		want    pin.Kind
		shares  bool // its containers share one PID namespace
	}{
		{"no options", nil, pin.Net | pin.UTS | pin.IPC, true},
		{"a PID namespace for each container", &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}, pin.Net | pin.UTS | pin.IPC, false},
		{"the node's PIDs", &runtimeapi.NamespaceOption{Pid: nodes}, pin.Net | pin.UTS | pin.IPC, false},
		{"the node's network, and so its name", &runtimeapi.NamespaceOption{Network: nodes}, pin.IPC, true},
		{"the node's IPC", &runtimeapi.NamespaceOption{Ipc: nodes}, pin.Net | pin.UTS, true},
		{"all of the node's", &runtimeapi.NamespaceOption{Network: nodes, Ipc: nodes, Pid: nodes}, 0, false},
		{"users", &runtimeapi.NamespaceOption{UsernsOptions: userns()}, pin.User | pin.Net | pin.UTS | pin.IPC, true},
		{"users on the node's network", &runtimeapi.NamespaceOption{Network: nodes, UsernsOptions: userns()}, pin.User | pin.IPC, true},
	} {
		rec := recordWith(c.options)
		if got := rec.Kinds(); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		if got := rec.SharesPID(); got != c.shares {
			t.Errorf("%s: shares PIDs: %t", c.name, got)
		}
	}
}

func TestUsersOfAPodAreKnownByTheNodesIDs(t *testing.T) {
	mapped := recordWith(&runtimeapi.NamespaceOption{UsernsOptions: userns()})
	plain := recordWith(nil)
	if got := mapped.RootOwner(); got != (rootfs.Owner{UID: 100000, GID: 200000}) {
		t.Errorf("root of a pod with a user namespace: %v", got)
	}
	if got := plain.RootOwner(); got != (rootfs.Owner{}) {
		t.Errorf("root of a pod without: %v", got)
	}
	for _, c := range []struct {
		rec  *SandboxRecord
		user specs.User
		want *wire.Owner
	}{
		{plain, specs.User{UID: 7, GID: 8}, &wire.Owner{UID: 7, GID: 8}},
		{mapped, specs.User{UID: 7, GID: 8}, &wire.Owner{UID: 100007, GID: 200008}},
		{mapped, specs.User{UID: 1000, GID: 8}, nil}, // the OCI runtime refuses it
		{mapped, specs.User{UID: 7, GID: 1000}, nil},
	} {
		got := c.rec.HostUser(c.user)
		if (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
			t.Errorf("%+v: %v, want %v", c.user, got, c.want)
		}
	}
}

func TestAPodsHostnameIsOneThatTheKernelTakes(t *testing.T) {
	node, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("a", 62)
	for _, c := range []struct{ configured, name, want string }{
		{"given", "web", "given"},
		{"", "web", "web"},
		{"", long + "bcd", long + "b"},
		{"", long + "--d", long}, // no dash or dot at the end
		{"", long + ".-d", long},
	} {
		rec := recordWith(nil)
		rec.Config.Hostname, rec.Config.Metadata.Name = c.configured, c.name
		if got := rec.Hostname(); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
	if got := recordWith(&runtimeapi.NamespaceOption{Network: nodes}).Hostname(); got != node {
		t.Errorf("on the node's network: %q, want %q", got, node)
	}
}

func TestObjectsAreNamedByIDAndIdentity(t *testing.T) {
	rec := recordWith(nil)
	if rec.Identity() != "n/web/u/2" || rec.Object() != "sandbox s (n/web/u/2)" {
		t.Errorf("%q, %q", rec.Identity(), rec.Object())
	}
	c := &ContainerRecord{ID: "c", Sandbox: "s", Config: ContainerConfig{&runtimeapi.ContainerConfig{Metadata: &runtimeapi.ContainerMetadata{Name: "app", Attempt: 1}}}}
	if c.Identity() != "app/1" || c.Object() != "container c (s/app/1)" {
		t.Errorf("%q, %q", c.Identity(), c.Object())
	}
}

// binaries finds those that are named in it.
type binaries map[string]string

func (b binaries) Path(handler string) (string, bool) {
	path, ok := b[handler]
	return path, ok
}

func places(handlers binaries) *Places {
	return &Places{Paths: Paths{Root: "/root", State: "/state", NetNS: "/netns"}, SystemdDriver: true, Handlers: handlers, Log: slog.New(slog.DiscardHandler)}
}

func TestWhatARecordDoesNotSayIsAsConfiguredNow(t *testing.T) {
	p := places(binaries{"runc": "/usr/bin/runc"})
	now := p.MeansNow("s", handler.Handler{Name: "runc", Path: "/usr/bin/runc"})
	if want := (Means{Runtime: "/usr/bin/runc", RuntimeRoot: "/state/runtime/runc", SystemdCgroup: true, Scope: "cri-containerd", NetNS: "/netns/pinfold-s"}); now != want {
		t.Errorf("a new pod's: %+v", now)
	}
	old := recordWith(nil)
	now.Scope = "" // the containers of a record without means are in scopes of another name
	if got := p.Means(old); got != now {
		t.Errorf("an old record's: %+v", got)
	}
	old.Network = &network.Attachment{NetNS: "/elsewhere/s"}
	if got := p.Means(old); got.NetNS != "/elsewhere/s" || p.PinPath(old, pin.Net) != "/elsewhere/s" {
		t.Errorf("an old record's whose network says where it is: %+v", got)
	}
	// The configuration has changed since the record was made.
	kept := recordWith(nil)
	kept.Means = Means{Runtime: "/opt/runc", RuntimeRoot: "/old/runc", NetNS: "/old/netns"}
	if got := p.Means(kept); got != kept.Means || p.SystemdCgroup(kept) || p.PinPath(kept, pin.Net) != "/old/netns" {
		t.Errorf("a record's own: %+v", got)
	}
	if got := p.PinPath(kept, pin.IPC); got != "/state/ns/s/ipc" {
		t.Errorf("a pin that is no network: %s", got)
	}
}

func TestAContainerIsRemovedByItsRuntimeOrTheOneThatIsConfiguredNow(t *testing.T) {
	there := filepath.Join(t.TempDir(), "runc")
	if err := os.WriteFile(there, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name           string
		recorded, want string
		handlers       binaries
	}{
		{"the recorded one is there", there, there, binaries{"runc": "/new/runc"}},
		{"it is gone", "/gone/runc", "/new/runc", binaries{"runc": "/new/runc"}},
		{"so is its handler", "/gone/runc", "/gone/runc", binaries{}}, // pinder removes without it
	} {
		rec := recordWith(nil)
		rec.Means = Means{Runtime: c.recorded, RuntimeRoot: "/state/runtime/runc", SystemdCgroup: true}
		got := places(c.handlers).Deletion(rec, "c")
		if got.ID != "c" || got.Runtime.Binary != c.want || got.Runtime.Root != "/state/runtime/runc" || !got.Runtime.SystemdCgroup ||
			got.Runtime.TimeoutMillis != RuntimeTimeout.Milliseconds() {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

func TestPinsAreThoseOfThePodsOwnNamespaces(t *testing.T) {
	rec := recordWith(&runtimeapi.NamespaceOption{UsernsOptions: userns()})
	rec.Means = Means{RuntimeRoot: "/r", NetNS: "/netns/pinfold-s"}
	rec.Init = proc.Process{PID: 7}
	want := map[string]string{
		"user": "/state/ns/s/user", "net": "/netns/pinfold-s", "ipc": "/state/ns/s/ipc", "uts": "/state/ns/s/uts", "pid": "/state/ns/s/pid",
	}
	got := places(nil).NamespacePins(rec)
	for kind, path := range want {
		if got[kind] != path {
			t.Errorf("%s: %q, want %q", kind, got[kind], path)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %v", got)
	}
	if got := places(nil).NamespacePins(recordWith(&runtimeapi.NamespaceOption{Network: nodes, Ipc: nodes})); len(got) != 0 {
		t.Errorf("a pod without any has %v", got)
	}
}
