package lifecycle

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/network"
)

func TestResolvConfIsWhatCRIAsksForOrTheNodes(t *testing.T) {
	node, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		dns  *runtimeapi.DNSConfig
		want string
	}{
		{"no configuration: the node's own", nil, string(node)},
		{"an empty one asks for an empty file", &runtimeapi.DNSConfig{}, ""},
		{"servers", &runtimeapi.DNSConfig{Servers: []string{"10.0.0.1", "fd00::1"}}, "nameserver 10.0.0.1\nnameserver fd00::1\n"},
		{
			"all", &runtimeapi.DNSConfig{Servers: []string{"10.0.0.1"}, Searches: []string{"a.example", "example"}, Options: []string{"ndots:5", "edns0"}},
			"search a.example example\nnameserver 10.0.0.1\noptions ndots:5 edns0\n",
		},
	} {
		if got, err := resolvConf(c.dns); err != nil || got != c.want {
			t.Errorf("%s: %q, %v, want %q", c.name, got, err, c.want)
		}
	}
}

func TestHostsNamesThePodByItsAddresses(t *testing.T) {
	const local = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::\tip6-localnet\nfe00::\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
	if got := hosts("web", false, nil); got != local {
		t.Errorf("before the network is attached: %q", got)
	}
	ips := []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")}
	if got := hosts("web", false, ips); got != local+"10.0.0.2\tweb\nfd00::2\tweb\n" {
		t.Errorf("with addresses: %q", got)
	}
	node, err := os.ReadFile("/etc/hosts")
	if err != nil {
		t.Skip("this node has no /etc/hosts")
	}
	if got := hosts("web", true, ips); got != string(node) {
		t.Errorf("on the node's network: %q", got)
	}
}

func TestOnlyPortsOfTheNodeAreForwarded(t *testing.T) {
	got := portMappings([]*runtimeapi.PortMapping{
		{ContainerPort: 80},
		{HostPort: 8080, ContainerPort: 80, Protocol: runtimeapi.Protocol_UDP, HostIp: "10.0.0.1"},
		{HostPort: 1, ContainerPort: 2},
	})
	want := []network.PortMapping{
		{HostPort: 8080, ContainerPort: 80, Protocol: "UDP", HostIP: "10.0.0.1"},
		{HostPort: 1, ContainerPort: 2, Protocol: "TCP"},
	}
	if len(got) != len(want) || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestNetworkPluginsAreToldTheDNSConfigurationIfThereIsOne(t *testing.T) {
	if got := dns(nil); got != nil {
		t.Errorf("none: %+v", got)
	}
	got := dns(&runtimeapi.DNSConfig{Servers: []string{"s"}, Searches: []string{"d"}, Options: []string{"o"}})
	if got == nil || len(got.Servers) != 1 || len(got.Searches) != 1 || len(got.Options) != 1 || got.Servers[0] != "s" || got.Searches[0] != "d" || got.Options[0] != "o" {
		t.Errorf("got %+v", got)
	}
}

func TestALogDirectoryLeadsNowhereElse(t *testing.T) {
	dir, elsewhere := filepath.Join(t.TempDir(), "logs"), t.TempDir()
	for _, log := range []string{"0.log", "app/0.log", "app/sub/0.log"} {
		if err := makeLogDir(dir, log); err != nil {
			t.Errorf("%s: %v", log, err)
		}
		if info, err := os.Stat(filepath.Dir(filepath.Join(dir, log))); err != nil || !info.IsDir() {
			t.Errorf("%s: %v", log, err)
		}
	}
	// A log agent's container has replaced a directory by a link.
	if err := os.Symlink(elsewhere, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := makeLogDir(dir, "link/sub/0.log"); err == nil {
		t.Error("a link out of the pod's directory is followed")
	}
	if found, err := os.ReadDir(elsewhere); err != nil || len(found) != 0 {
		t.Errorf("%v, %v was made there", found, err)
	}
}

func TestAMissingCommandIsKnownByTheRuntimesWords(t *testing.T) {
	for text, missing := range map[string]bool{
		`runc create failed: unable to start container process: error during container init: exec: "nosuch": executable file not found in $PATH`: true,
		`runc create failed: error during container init: exec: "/nosuch": stat /nosuch: no such file or directory`:                              true,
		"executable file `nosuch` not found: No such file or directory":                                                                          true,
		`exec: "/bin": is a directory: permission denied`:                                                                                        false,
		`error mounting "/x" to rootfs: no such file or directory`:                                                                               false,
		"cgroup not found": false,
	} {
		err := commandMissing(&textError{text})
		if errdefs.IsNotFound(err) != missing {
			t.Errorf("%q: %v", text, err)
		}
		if err.Error()[:len(text)] != text {
			t.Errorf("the runtime's words are lost: %v", err)
		}
	}
}

type textError struct{ text string }

func (e *textError) Error() string { return e.text }
