package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
)

// hostileList is a network whose bridge and store a test damages.
func (h *host) hostileList(subnet string) string {
	return fmt.Sprintf(`{"cniVersion":"1.1.0","name":"pods","plugins":[{"type":"bridge","bridge":"pf-test0","isGateway":true,
		"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":%q}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}`, h.store(), subnet)
}

// bothWays runs a test with plugins that are started, and in process.
func bothWays(t *testing.T, subnet string, test func(t *testing.T, h *host, n *Network)) {
	t.Helper()
	for name, all := range map[string]bool{"started": true, "in process": false} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.needReal()
			h.cfg.StartAll = all
			h.write("10-pods.conflist", h.hostileList(subnet))
			n := h.network()
			if ways := n.Plugins(t.Context()); !all && ways[0].Way != "in process" {
				t.Fatalf("%+v", ways)
			}
			test(t, h, n)
		})
	}
}

func (h *host) attach(n *Network) *Attachment {
	h.t.Helper()
	a := plan(h.t, n, h.request())
	if err := n.Attach(h.t.Context(), a); err != nil {
		h.t.Fatal(err)
	}
	return a
}

func (h *host) detach(n *Network, all ...*Attachment) {
	h.t.Helper()
	for _, a := range all {
		if err := n.Detach(context.WithoutCancel(h.t.Context()), a, a.NetNS); err != nil {
			h.t.Error(err)
		}
	}
}

func TestANodeWithoutAddressesSaysSo(t *testing.T) {
	bothWays(t, "10.211.7.0/30", func(t *testing.T, h *host, n *Network) {
		a := h.attach(n) // the only one
		b := plan(t, n, h.request())
		err := n.Attach(t.Context(), b)
		contains(t, err, errdefs.IsUnavailable, "ADD", "bridge", "no IP addresses available in range set: 10.211.7.1-10.211.7.2")
		h.detach(n, b, a)
		h.assertNoTrace()
		h.detach(n, h.attach(n))
	})
}

func TestABridgeThatSomebodyDeletes(t *testing.T) {
	bothWays(t, "10.211.7.0/24", func(t *testing.T, h *host, n *Network) {
		remove := func() {
			if out, err := exec.Command("ip", "link", "del", "pf-test0").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		a := h.attach(n)
		remove()
		b := h.attach(n) // makes it again
		link, err := net.InterfaceByName("pf-test0")
		if err != nil {
			t.Fatal(err)
		}
		if addrs, _ := link.Addrs(); !strings.Contains(fmt.Sprint(addrs), "10.211.7.1/24") {
			t.Errorf("the new bridge has %v", addrs)
		}
		remove()
		h.detach(n, a, b)
		h.assertNoTrace()
	})
}

func TestAnInterfaceThatIsGoneBeforeDEL(t *testing.T) {
	bothWays(t, "10.211.7.0/24", func(t *testing.T, h *host, n *Network) {
		a := h.attach(n)
		inside(t, a.NetNS, func() error { return exec.Command("ip", "link", "del", "eth0").Run() })
		h.detach(n, a)
		h.assertNoTrace()
	})
}

// damages are what may be wrong with the store; next is the address that comes next. With each of them a pod gets an address
// that no other has, and gives it back.
var damages = map[string]func(dir, next string) error{
	"the last address is missing":       func(dir, _ string) error { return os.Remove(filepath.Join(dir, lastTaken)) },
	"the last address is rubbish":       overwrite(lastTaken, "\x00\xff rubbish"),
	"the last address is empty":         overwrite(lastTaken, ""),
	"the last address is of elsewhere":  overwrite(lastTaken, "192.0.2.1"),
	"a file is empty":                   overwrite("", ""),
	"a file is half written":            overwrite("", "0123456789"),
	"a file has other line breaks":      overwrite("", "another\neth0\n"),
	"a file has the name of no address": overwrite("rubbish", "another\r\neth0"),
	"there is a directory":              func(dir, next string) error { return os.MkdirAll(filepath.Join(dir, next, "inner"), 0o755) },
}

const lastTaken = "last_reserved_ip.0"

// overwrite writes a file; without a name it is that of the next address.
func overwrite(name, content string) func(string, string) error {
	return func(dir, next string) error {
		return os.WriteFile(filepath.Join(dir, cmp.Or(name, next)), []byte(content), 0o600)
	}
}

func TestAStoreOfAddressesThatIsDamaged(t *testing.T) {
	bothWays(t, "10.211.7.0/24", func(t *testing.T, h *host, n *Network) {
		dir := filepath.Join(h.store(), "pods")
		for what, damage := range damages {
			a := h.attach(n)
			next := a.IPs()[0].Next().String()
			if err := damage(dir, next); err != nil {
				t.Fatal(err)
			}
			b := h.attach(n)
			if got := b.IPs(); len(got) != 1 || got[0] == a.IPs()[0] {
				t.Errorf("%s: addresses %v and %v", what, a.IPs(), got)
			}
			h.detach(n, a, b)
			for _, ip := range []string{a.IPs()[0].String(), b.IPs()[0].String()} {
				if _, err := os.Lstat(filepath.Join(dir, ip)); err == nil {
					t.Errorf("%s: %s is still held", what, ip)
				}
			}
			// What was put there is nobody's, and stays.
			for _, name := range []string{next, "rubbish"} {
				if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
		}
		h.assertNoTrace()
	})
}

func TestAStoreOfAddressesThatCannotBeWritten(t *testing.T) {
	bothWays(t, "10.211.7.0/24", func(t *testing.T, h *host, n *Network) {
		// Root writes everywhere but below a file.
		if err := os.WriteFile(h.store(), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		a := plan(t, n, h.request())
		contains(t, n.Attach(t.Context(), a), errdefs.IsUnavailable, "ADD", "not a directory")
		if err := os.Remove(h.store()); err != nil {
			t.Fatal(err)
		}
		h.detach(n, a)
		h.assertNoTrace()
	})
}

func TestManyPodsAtOnceAreTheFirstUsersOfABridge(t *testing.T) {
	bothWays(t, "10.211.7.0/24", func(t *testing.T, h *host, n *Network) {
		if h.cfg.StartAll {
			t.Log("the plugins have no lock: only in process is it promised")
			return
		}
		const pods = 30
		var all []*Attachment
		for range pods {
			all = append(all, plan(t, n, h.request()))
		}
		atOnce(t, all, func(a *Attachment) error { return n.Attach(t.Context(), a) })
		seen := map[string]bool{}
		for _, a := range all {
			seen[fmt.Sprint(a.IPs())] = true
		}
		if len(seen) != pods {
			t.Errorf("%d pods have %d addresses", pods, len(seen))
		}
		link, err := net.InterfaceByName("pf-test0")
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range all {
			if !strings.Contains(string(a.Result), link.HardwareAddr.String()) {
				t.Errorf("the bridge's address was not always %s: %s", link.HardwareAddr, a.Result)
			}
		}
		atOnce(t, all, func(a *Attachment) error { return n.Detach(t.Context(), a, a.NetNS) })
		if now, err := net.InterfaceByName("pf-test0"); err != nil || now.HardwareAddr.String() != link.HardwareAddr.String() {
			t.Errorf("the bridge's address changes with its ports: %v, %v", now, err)
		}
		h.assertNoTrace()
	})
}

func atOnce(t *testing.T, all []*Attachment, do func(*Attachment) error) {
	t.Helper()
	var wait sync.WaitGroup
	failed := make([]error, len(all))
	for i, a := range all {
		wait.Go(func() { failed[i] = do(a) })
	}
	wait.Wait()
	if err := errors.Join(failed...); err != nil {
		t.Fatal(err)
	}
}
