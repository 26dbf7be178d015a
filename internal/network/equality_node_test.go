package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
)

// equality marks a process that plays the node of one run of a case: it has its value, a nodeOrder.
const equality = "PINFOLD_TEST_EQUALITY"

// nodeDir has all files of a node. It is on a file system of the node's own, so it is the same path in each.
const nodeDir = "/run/node"

// nodeOrder says what a node does.
type nodeOrder struct {
	Case   equalCase
	BinDir string
	Report string // the file that gets a report
	// First and Second carry out what the first and the second runtime of the node do: started or within.
	First, Second way
}

// report is what a node was like, by the name of the moment and of the part of the state.
type report struct {
	States map[string]state
	Ways   []PluginWay
	Failed string // the error of the ADD, if the case has one
}

// testNode is a node in a process with namespaces of its own.
type testNode struct {
	order    nodeOrder
	networks map[way]*Network
	report   report
}

// runEqualityNode is the process of a node.
func runEqualityNode() int {
	n := &testNode{report: report{States: map[string]state{}}}
	err := json.Unmarshal([]byte(os.Getenv(equality)), &n.order)
	if err == nil {
		err = n.run(context.Background())
	}
	if err == nil {
		var data []byte
		if data, err = json.Marshal(n.report); err == nil {
			err = os.WriteFile(n.order.Report, data, 0o600)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (n *testNode) run(ctx context.Context) error {
	if err := n.prepare(); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	defer func() {
		for _, network := range n.networks {
			_ = network.Close()
		}
		if hierarchies, err := cgroup.Detect(); err == nil && hierarchies.Unified != "" {
			scour(filepath.Join(hierarchies.Unified, n.config(started).CgroupParent))
		}
	}()
	n.report.Ways = n.networks[within].Plugins(ctx)
	if n.order.Case.Fails || n.order.Case.Kernel != "" && exec.Command("sh", "-c", n.order.Case.Kernel).Run() != nil {
		return n.failing(ctx)
	}
	return n.story(ctx)
}

// prepare makes the node's directories, its configuration and its networks.
func (n *testNode) prepare() error {
	// The plugins' lock, their directories in /run, and the node's own.
	if err := unix.Mount("node", "/run", "tmpfs", 0, ""); err != nil {
		return err
	}
	c := n.order.Case
	for _, dir := range []string{"net.d", "bin", "pods"} {
		if err := os.MkdirAll(filepath.Join(nodeDir, dir), 0o755); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.Symlink(self, filepath.Join(nodeDir, "bin", markPlugin)); err != nil {
		return err
	}
	version := c.Version
	if version == "" {
		version = "1.1.0"
	}
	list := fmt.Sprintf(`{"cniVersion":%q,"name":"pods","plugins":[%s]}`, version, strings.ReplaceAll(c.Plugins, "DATA", nodeDir))
	if err := os.WriteFile(filepath.Join(nodeDir, "net.d", "10-pods.conflist"), []byte(list), 0o600); err != nil {
		return err
	}
	for _, command := range c.Before {
		if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", command, err, out)
		}
	}
	n.networks = map[way]*Network{}
	for _, w := range []way{started, within} {
		if n.networks[w], err = New(n.config(w)); err != nil {
			return err
		}
	}
	return nil
}

func (n *testNode) config(w way) Config {
	return Config{
		ConfDir: filepath.Join(nodeDir, "net.d"), BinDirs: []string{filepath.Join(nodeDir, "bin"), n.order.BinDir},
		CacheDir: filepath.Join(nodeDir, "cache"), CgroupParent: fmt.Sprintf("pinfold-test-node-%d", os.Getpid()),
		StartAll: w == started,
	}
}

// story is the life of three pods, two of them of the first runtime and one of the second. Each is removed by the other.
func (n *testNode) story(ctx context.Context) error {
	first, second := n.networks[n.order.First], n.networks[n.order.Second]
	one, err := n.add(ctx, first, "one")
	if err != nil {
		return err
	}
	two, err := n.add(ctx, second, "two")
	if err != nil {
		return err
	}
	n.look("two pods", one, two)
	for _, network := range n.checking() {
		for _, a := range []*Attachment{one, two} {
			if err := n.check(ctx, network, a); err != nil {
				return fmt.Errorf("CHECK of what both have made: %w", err)
			}
		}
	}
	for range 2 {
		one.Owed = true // it is repeated, as after a crash
		if err := second.Detach(ctx, one, one.NetNS); err != nil {
			return err
		}
	}
	n.look("the first is removed", one, two)
	if err := n.broken(ctx, first, second); err != nil {
		return err
	}
	if err := first.GC(ctx, []Attachment{*two}); err != nil {
		return err
	}
	n.look("the third is removed without a namespace, and GC", two)
	if err := first.Detach(ctx, two, two.NetNS); err != nil {
		return err
	}
	n.look("all are removed", two)
	return nil
}

// broken is a pod whose interface is damaged, and whose namespace is gone before DEL.
func (n *testNode) broken(ctx context.Context, first, second *Network) error {
	three, err := n.add(ctx, first, "three")
	if err != nil {
		return err
	}
	if len(three.IPs()) > 0 && !n.order.Case.Lenient {
		err := onNamespace(three.NetNS, func() error { return exec.Command("ip", "addr", "flush", "dev", "eth0").Run() })
		if err != nil {
			return err
		}
		for _, network := range n.checking() {
			if n.check(ctx, network, three) == nil {
				return errors.New("CHECK finds nothing wrong where the addresses are gone")
			}
		}
	}
	// The kernel would remove the interfaces with the namespace, some time later.
	if err := onNamespace(three.NetNS, func() error { return exec.Command("ip", "link", "del", "eth0").Run() }); err != nil {
		return err
	}
	unpin(three.NetNS)
	return second.Detach(ctx, three, "")
}

// checking are the networks whose CHECK is compared. Where both start the plugins, one is enough.
func (n *testNode) checking() []*Network {
	switch {
	case n.order.Case.Lenient:
		return nil
	case n.order.First == n.order.Second:
		return []*Network{n.networks[started]}
	default:
		return []*Network{n.networks[within], n.networks[started]}
	}
}

// failing is an ADD that must not succeed. Its DEL leaves nothing.
func (n *testNode) failing(ctx context.Context) error {
	a, err := n.plan(n.networks[n.order.First], "one")
	if err != nil {
		return err
	}
	if err = n.networks[n.order.First].Attach(ctx, a); err == nil {
		return errors.New("ADD succeeds")
	}
	n.report.Failed = veths.ReplaceAllString(err.Error(), "veth-1")
	if err := n.networks[n.order.Second].Detach(ctx, a, a.NetNS); err != nil {
		return err
	}
	n.look("all are removed", a)
	if len(veths.FindAllString(run("ip", "-o", "link"), -1)) > 0 {
		return errors.New("an interface is left")
	}
	// Pinfold takes the addresses before it makes the bridge, and what is left of both stays for the next pod.
	for part := range n.report.States["all are removed"] {
		if !strings.HasSuffix(part, "tables") && !strings.HasPrefix(part, "file "+nodeDir+"/ipam/pods/1") {
			delete(n.report.States["all are removed"], part)
		}
	}
	return nil
}

func (n *testNode) plan(network *Network, name string) (*Attachment, error) {
	path := filepath.Join(nodeDir, "pods", name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return nil, err
	}
	err := onNewThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		if err := LoopbackUp(); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	})
	if err != nil {
		return nil, err
	}
	c := n.order.Case
	a, err := network.Plan(Request{
		SandboxID: "pod-" + name, Namespace: "default", Name: name, UID: "uid-" + name, NetNS: path,
		PortMappings: c.Ports[name], DNS: c.DNS,
	})
	if c.Caps != "" {
		number := map[string]string{"one": "1", "two": "2", "three": "3"}[name]
		a.CapabilityArgs = json.RawMessage(strings.ReplaceAll(c.Caps, "POD", number))
	}
	return &a, err
}

func (n *testNode) add(ctx context.Context, network *Network, name string) (*Attachment, error) {
	a, err := n.plan(network, name)
	if err != nil {
		return nil, err
	}
	return a, network.Attach(ctx, a)
}

func (n *testNode) check(ctx context.Context, network *Network, a *Attachment) error {
	list, rt, err := a.parts()
	if err != nil {
		return err
	}
	r := &runner{net: network, group: a.group()}
	defer network.groups.remove(a.group())
	cni := network.cni(r, network.binDirs())
	return cni.CheckNetworkList(ctx, list, rt)
}

// look notes the state of the node, and of the pods that have a namespace.
func (n *testNode) look(moment string, pods ...*Attachment) {
	s := state{}
	names := &names{}
	names.learn()
	all := moment == "two pods"
	s.addNetwork("node", names)
	s.addSysctls("node", names)
	for _, a := range pods {
		_ = onNamespace(a.NetNS, func() error {
			s.addNetwork(filepath.Base(a.NetNS), names)
			if all {
				s.addSysctls(filepath.Base(a.NetNS), names)
			}
			return nil
		})
		if len(a.Result) > 0 {
			s.add("result of "+filepath.Base(a.NetNS), names.in(indented(a.Result)))
		}
	}
	s.addFiles(names)
	n.report.States[moment] = s
}

// markPlugin is a plugin that Pinfold does not know. It notes that it was called, and changes nothing.
const markPlugin = "mark"

func runMarkPlugin() int {
	var conf struct {
		CNIVersion string          `json:"cniVersion"`
		PrevResult json.RawMessage `json:"prevResult"`
	}
	if err := json.NewDecoder(os.Stdin).Decode(&conf); err != nil {
		return 1
	}
	command := os.Getenv("CNI_COMMAND")
	f, err := os.OpenFile(nodeDir+"/marks", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return 1
	}
	defer f.Close()
	if command == "ADD" || command == "DEL" {
		fmt.Fprintln(f, command, os.Getenv("CNI_CONTAINERID"))
	}
	if command == "ADD" {
		fmt.Println(string(conf.PrevResult))
	}
	return 0
}

// onNewThread runs fn on a thread that ends afterwards.
func onNewThread(fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		done <- fn()
	}()
	return <-done
}

func onNamespace(path string, fn func() error) error {
	if liveNamespace(path) == "" {
		return errors.New("no namespace")
	}
	return onNewThread(func() error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return fn()
	})
}
