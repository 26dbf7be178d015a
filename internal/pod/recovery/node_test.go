package recovery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/network"
	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/pod/lifecycle"
	"github.com/pinfold-run/pinfold/internal/record"
	"github.com/pinfold-run/pinfold/internal/steps"
)

// node is what a daemon finds when it starts: files and records, which are real, and the answers of pinder, the kernel
// and the plugins, which are made up here. How recovery works with the operations is in package scenario.
type node struct {
	t     *testing.T
	paths pod.Paths
	log   bytes.Buffer

	// What pinder knows, or why it does not answer.
	known    []wire.Container
	silent   error
	adopted  []string
	deleted  []wire.Delete
	pins     map[string]uint64 // inode numbers by path
	mounts   map[string]bool   // by ID
	detached []string
	swept    int // calls of RemoveUnused
}

func newNode(t *testing.T) *node {
	dir := t.TempDir()
	n := &node{
		t: t, pins: map[string]uint64{}, mounts: map[string]bool{},
		paths: pod.Paths{Root: filepath.Join(dir, "root"), State: filepath.Join(dir, "state"), NetNS: filepath.Join(dir, "netns")},
	}
	for _, path := range []string{filepath.Join(n.paths.Root, "pods"), n.paths.Pins(), n.paths.Bundles()} {
		n.mkdir(path)
	}
	return n
}

func (n *node) mkdir(path string) {
	n.t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) write(path, text string) {
	n.t.Helper()
	n.mkdir(filepath.Dir(path))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// start makes a daemon's recovery, in the first boot or a later one.
func (n *node) start(boot string) *Recovery {
	n.t.Helper()
	store, err := record.Open(n.paths.Root, boot)
	if err != nil {
		n.t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(&n.log, nil))
	book, debts := pod.NewBook(), NewDebts(log)
	base := lifecycle.Base{
		Places: &pod.Places{Paths: n.paths, Handlers: handlers{}, Log: log}, Book: book,
		Records: pod.NewRecords(store, pod.NewEvents(book), log), Engine: steps.NewEngine(), Debts: debts, Log: log,
	}
	sandboxes, containers := lifecycle.New(base, lifecycle.Parts{
		Pins: pins{node: n}, Mounts: mounts{node: n}, Cgroups: cgroups{}, Network: plugins{node: n}, Images: images{node: n}, Pinder: pinder{node: n},
	})
	return New(base, Parts{
		Pinder: pinder{node: n}, Mounts: mounts{node: n}, Network: plugins{node: n}, Images: images{node: n}, Handlers: handlers{}, Pins: pins{node: n},
	}, sandboxes, containers, debts)
}

// sandbox adds the record of a sandbox that has nothing of its own, except what the options ask for.
func (n *node) sandbox(id string, state pod.State, options *runtimeapi.NamespaceOption) *pod.SandboxRecord {
	if options == nil {
		node := runtimeapi.NamespaceMode_NODE
		options = &runtimeapi.NamespaceOption{Network: node, Ipc: node, Pid: node}
	}
	return &pod.SandboxRecord{ID: id, State: state, Handler: "runc", Config: ocispec.ParsePod(&runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: id, Namespace: "ns", Uid: "uid"},
		Linux:    &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: options}},
	})}
}

// container is a record of a container in the sandbox "p".
func (n *node) container(id string, state pod.State) *pod.ContainerRecord {
	return &pod.ContainerRecord{ID: id, Sandbox: "p", State: state, Config: pod.ContainerConfig{
		ContainerConfig: &runtimeapi.ContainerConfig{Metadata: &runtimeapi.ContainerMetadata{Name: id}},
	}}
}

// put writes records as a daemon of the first boot did.
func (n *node) put(records ...any) {
	n.t.Helper()
	r := n.start("boot 1").Records
	for _, rec := range records {
		var err error
		switch rec := rec.(type) {
		case *pod.SandboxRecord:
			_, err = r.Intend(pod.NewSandbox(rec))
			n.mkdir(n.paths.Containers(rec.ID))
		case *pod.ContainerRecord:
			err = r.PutContainer(rec)
		}
		if err != nil {
			n.t.Fatal(err)
		}
	}
}

// load is a start of the daemon up to the point where pinder is asked.
func (n *node) load(boot string) *Recovery {
	n.t.Helper()
	r := n.start(boot)
	if err := r.Load(); err != nil {
		n.t.Fatal(err)
	}
	return r
}

// process starts a process, for as long as the test lasts.
func (n *node) process() proc.Process {
	n.t.Helper()
	command := exec.Command("sleep", "1000")
	if err := command.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	found, err := proc.Find(command.Process.Pid)
	if err != nil {
		n.t.Fatal(err)
	}
	return found
}

// boxOf and containerOf are what the book has.
func boxOf(t *testing.T, r *Recovery, id string) *pod.Sandbox {
	t.Helper()
	box, err := r.Book.Sandbox(id)
	if err != nil {
		t.Fatal(err)
	}
	return box
}

func containerOf(t *testing.T, r *Recovery, id string) *pod.Container {
	t.Helper()
	c, err := r.Book.Container(id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// owed are the IDs on the list of debts, in order.
func owed(r *Recovery) []string { return slices.Sorted(maps.Keys(r.debts.owed)) }

// The parts. What is not made up here is not asked for by recovery: a call of it is a panic.

type handlers struct{}

func (handlers) Default() string                    { return "runc" }
func (handlers) Path(handler string) (string, bool) { return "/opt/" + handler, true }

type cgroups struct{ lifecycle.Cgroups }

func (cgroups) Remove(string) error { return nil }

type pins struct {
	lifecycle.Pins
	*node
}

func (p pins) Identify(path string) (uint64, error) {
	if inode, ok := p.pins[path]; ok {
		return inode, nil
	}
	return 0, &os.PathError{Op: "stat", Path: path, Err: unix.ENOENT}
}

func (p pins) Unpin(path string) error { delete(p.pins, path); return nil }

type mounts struct {
	lifecycle.Mounts
	*node
}

func (m mounts) Dir() string                     { return m.paths.Mounts() }
func (m mounts) ShmPath(id string) string        { return filepath.Join(m.Dir(), id, "shm") }
func (m mounts) List() ([]string, error)         { return slices.Collect(maps.Keys(m.mounts)), nil }
func (m mounts) Mounted(id string) (bool, error) { return m.mounts[id], nil }
func (m mounts) Unmount(id string) error         { delete(m.mounts, id); return nil }

type plugins struct {
	lifecycle.Network
	*node
}

func (plugins) Plan(r network.Request) (network.Attachment, error) {
	return network.Attachment{SandboxID: r.SandboxID, NetNS: r.NetNS, Network: "today"}, nil
}

func (p plugins) Detach(_ context.Context, a *network.Attachment, netns string) error {
	p.detached = append(p.detached, a.SandboxID+" in "+netns)
	return nil
}

func (p plugins) Current() (string, json.RawMessage, bool) {
	list, err := json.Marshal(map[string]any{"plugins": []any{map[string]any{
		"ipam": map[string]string{"type": "host-local", "dataDir": filepath.Join(p.paths.Root, "addresses")},
	}}})
	return "today", list, err == nil
}

type images struct {
	lifecycle.Images
	*node
}

func (i images) RemoveUnused(context.Context) error { i.swept++; return nil }
func (images) Quarantined() []image.Quarantined     { return nil }

type pinder struct {
	lifecycle.Pinder
	*node
}

func (p pinder) Containers(context.Context) ([]wire.Container, error) { return p.known, p.silent }

func (p pinder) Adopt(_ context.Context, r wire.Adopt) (wire.Created, error) {
	p.adopted = append(p.adopted, r.ID)
	return wire.Created{Process: r.Process}, nil
}

func (p pinder) Delete(_ context.Context, r wire.Delete) error {
	p.deleted = append(p.deleted, r)
	p.known = slices.DeleteFunc(p.known, func(c wire.Container) bool { return c.ID == r.ID })
	return nil
}
