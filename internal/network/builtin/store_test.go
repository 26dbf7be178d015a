package builtin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/disk"
	"golang.org/x/sys/unix"
)

// addressCall is a call for two addresses of a store in dir.
func addressCall(dir, id string) *Call {
	return &Call{ContainerID: id, IfName: "eth0", Config: fmt.Appendf(nil, `{"cniVersion":"1.0.0","name":"net","ipam":{"type":"host-local",
		"dataDir":%q,"ranges":[[{"subnet":"10.9.0.0/29"}],[{"subnet":"fd09::/64"}]]}}`, dir)}
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "net"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestAddressesAreTakenAndGivenBackInThePluginsOwnStore(t *testing.T) {
	dir := t.TempDir()
	p := New(nil)
	r, err := p.reserve(t.Context(), addressCall(dir, "pod1"))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.IPs) != 2 || r.IPs[0].Address.String() != "10.9.0.2/29" || r.IPs[0].Gateway.String() != "10.9.0.1" {
		t.Errorf("addresses: %v", r.IPs)
	}
	want := []string{"10.9.0.2", "fd09::2", "last_reserved_ip.0", "last_reserved_ip.1", "lock"}
	if got := files(t, dir); !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
	theirs, err := disk.New("net", dir)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	if got := theirs.GetByID("pod1", "eth0"); len(got) != 2 {
		t.Errorf("the plugin finds %v", got)
	}
	if _, err := p.reserve(t.Context(), addressCall(dir, "pod1")); err == nil || !strings.Contains(err.Error(), "duplicate allocation is not allowed") {
		t.Errorf("a second time: %v", err)
	}
	if err := p.release(t.Context(), addressCall(dir, "pod1")); err != nil {
		t.Fatal(err)
	}
	if got := files(t, dir); len(got) != 3 {
		t.Errorf("left: %q", got)
	}
	// What the plugin took, this gives back. A file of before there were interfaces counts, too.
	if ok, err := theirs.Reserve("pod2", "eth0", []byte{10, 9, 0, 4}, "0"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "net", "10.9.0.5"), []byte("pod3\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"pod2", "pod3"} {
		if err := p.release(t.Context(), addressCall(dir, id)); err != nil {
			t.Fatal(err)
		}
	}
	if got := files(t, dir); len(got) != 3 {
		t.Errorf("left: %q", got)
	}
}

func TestAStoreWithoutAFreeAddressSaysSoAndKeepsNone(t *testing.T) {
	dir := t.TempDir()
	p := New(nil)
	for i := range 5 {
		if _, err := p.reserve(t.Context(), addressCall(dir, fmt.Sprint("pod", i))); err != nil {
			t.Fatal(err)
		}
	}
	_, err := p.reserve(t.Context(), addressCall(dir, "late"))
	if err == nil || !strings.Contains(err.Error(), "no IP addresses available in range set: 10.9.0.1-10.9.0.6") {
		t.Errorf("%v", err)
	}
	// The second set of ranges fails after the first had an address.
	c := addressCall(dir, "late")
	c.Config = []byte(strings.Replace(string(c.Config), `[{"subnet":"10.9.0.0/29"}],[{"subnet":"fd09::/64"}]`, `[{"subnet":"fd09::/64"}],[{"subnet":"10.9.0.0/29"}]`, 1))
	before := files(t, dir)
	if _, err := p.reserve(t.Context(), c); err == nil {
		t.Error("it got an address")
	}
	if got := files(t, dir); !slices.Equal(got, before) {
		t.Errorf("files %q, before %q", got, before)
	}
}

func TestStrangeFilesOfAStoreAreNotLeasesAndStopNobody(t *testing.T) {
	dir := t.TempDir()
	net := filepath.Join(dir, "net")
	if err := os.Mkdir(net, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(net, "10.9.0.3"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"10.9.0.4": "", "10.9.0.5": strings.Repeat("x", 1<<20), "last_reserved_ip.0": "rubbish\n", "last_reserved_ip.1": "", "notes": "pod\r\neth0",
	} {
		if err := os.WriteFile(filepath.Join(net, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r, err := New(nil).reserve(t.Context(), addressCall(dir, "pod"))
	if err != nil || r.IPs[0].Address.IP.String() != "10.9.0.2" {
		t.Errorf("%v, %v", r, err)
	}
}

func TestTheWaitForAPluginThatHasTheStoreEndsWithTheContext(t *testing.T) {
	dir := t.TempDir()
	theirs, err := disk.New("net", dir)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	if err := theirs.Lock(); err != nil {
		t.Fatal(err)
	}
	p := New(nil)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := p.reserve(ctx, addressCall(dir, "pod")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if err := theirs.Unlock(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.reserve(t.Context(), addressCall(dir, "pod")); err != nil {
		t.Error(err)
	}
}
