package lifecycle

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/network"
	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/steps"
	"github.com/pinfold-run/pinfold/internal/tree"
	"github.com/pinfold-run/pinfold/pin"
)

// Sandboxes runs, stops and removes pods. One per daemon.
type Sandboxes struct {
	node       *pod.Node
	book       *pod.Book
	containers *Containers
	debts      Debts
	runs       steps.Joint[string]
	ends       steps.Joint[struct{}]
	levels     levels
	binary     initBinary
}

// NewSandboxes returns the life cycle of sandboxes, whose containers are those of cs.
func NewSandboxes(node *pod.Node, book *pod.Book, cs *Containers, debts Debts) *Sandboxes {
	return &Sandboxes{node: node, book: book, containers: cs, debts: debts}
}

// Run makes a pod and returns its ID. A request for a pod that is being made joins that operation; one
// for a pod that is ready returns it. When ctx ends first, the work goes on, and a repeated request
// finds it. handler "" is the default one.
func (s *Sandboxes) Run(ctx context.Context, config *runtimeapi.PodSandboxConfig, handler string) (string, error) {
	parsed := ocispec.ParsePod(config)
	if err := ocispec.ValidateSandbox(s.node.Host, parsed); err != nil {
		return "", err
	}
	runtime, err := s.node.Handlers.Find(ctx, handler)
	if err != nil {
		return "", err
	}
	rec := &pod.SandboxRecord{ID: pod.NewID(), State: pod.Creating, Created: time.Now(), Config: parsed, Handler: runtime.Name}
	rec.Means = s.node.MeansNow(rec.ID, runtime)
	key := rec.Identity()
	id, err := s.runs.Do(ctx, key, func(ctx context.Context) (string, error) {
		// One that has lost its namespaces is not ready any more, and replaced.
		if box := s.book.Ready(key); box != nil && s.Current(box).State == pod.Ready {
			return box.ID, nil
		}
		if err := s.planNetwork(rec); err != nil {
			return "", err
		}
		defer s.levels.choose(s.node.Host.SELinux, s.book, rec)()
		return rec.ID, s.run(ctx, pod.NewSandbox(rec))
	})
	return id, stillRunning(s.node, ctx, err, key)
}

func (s *Sandboxes) run(ctx context.Context, box *pod.Sandbox) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	box.Interrupt = cancel
	box.Order.Lock()
	defer box.Order.Unlock()
	err := s.node.Engine.Run(ctx, s.runOperation(box))
	var failed *steps.Error
	if errors.As(err, &failed) && failed.Undo != nil {
		s.debts.Add(box)
	}
	return err
}

func (s *Sandboxes) runOperation(box *pod.Sandbox) steps.Operation {
	rec := box.Record()
	return steps.Operation{
		Name:   "RunPodSandbox",
		Object: rec.Object(),
		Steps: []steps.Step{
			{Name: "record", Do: s.do(box, s.intend), Undo: s.do(box, s.forget), Owner: true},
			{Name: "namespaces", Do: s.do(box, s.makeNamespaces), Undo: s.do(box, s.Unpin)},
			{Name: "files", Do: s.do(box, s.writeFiles), Undo: s.do(box, s.removeFiles)},
			{Name: "network", Do: s.do(box, s.attach), Undo: s.do(box, s.detach)},
			{Name: "sysctls", Do: s.do(box, s.applySysctls)}, // some are those of an interface
			{Name: "init", Do: s.do(box, s.startInit), Undo: s.do(box, s.endInit)},
			{Name: "plugins", Do: s.do(box, s.pluginsRun), Undo: s.do(box, s.pluginsRemove)},
			{Name: "ready", Do: s.do(box, s.ready)},
		},
	}
}

// do binds a step's function to its sandbox.
func (s *Sandboxes) do(box *pod.Sandbox, step func(context.Context, *pod.Sandbox) error) func(context.Context) error {
	return func(ctx context.Context) error { return step(ctx, box) }
}

// planNetwork puts into the record what an attachment will be and owe, before anything is done.
func (s *Sandboxes) planNetwork(rec *pod.SandboxRecord) error {
	if rec.HostNetwork() {
		return nil
	}
	config := rec.Config.PodSandboxConfig
	attachment, err := s.node.Network.Plan(network.Request{
		SandboxID:    rec.ID,
		Namespace:    config.GetMetadata().GetNamespace(),
		Name:         config.GetMetadata().GetName(),
		UID:          config.GetMetadata().GetUid(),
		NetNS:        rec.Means.NetNS,
		PortMappings: portMappings(config.GetPortMappings()),
		DNS:          dns(config.GetDnsConfig()),
		Annotations:  config.GetAnnotations(),
		PodCIDRs:     podCIDRs(s.node),
		CgroupParent: s.node.Cgroup(rec).Parent,
	})
	if err != nil {
		return err
	}
	rec.Network = &attachment
	return nil
}

func (s *Sandboxes) intend(_ context.Context, box *pod.Sandbox) error {
	if err := os.MkdirAll(s.node.Paths.Sandbox(box.ID), 0o700); err != nil {
		return err
	}
	durable, err := s.node.Records.Intend(pod.SandboxKey(box.ID), box.Record())
	if err != nil {
		return err
	}
	// The sync overlaps the making of the namespaces; attach waits for it.
	synced := make(chan error, 1)
	go func() { synced <- durable() }()
	box.Durable = func() error { return <-synced }
	s.book.AddSandbox(box)
	return nil
}

func (s *Sandboxes) forget(ctx context.Context, box *pod.Sandbox) error {
	if box.Durable != nil {
		_ = box.Durable()
		box.Durable = nil
	}
	s.RemoveCgroup(box)
	// Where the network step was never come to, its undoing was not asked for, and no plugin is owed
	// anything although the plan in the record says so: see unpin.
	if err := s.node.Pins.Unpin(s.node.PinPath(box.Record(), pin.Net)); err != nil {
		return err
	}
	if err := s.node.Records.Remove(pod.SandboxKey(box.ID)); err != nil {
		return err
	}
	if err := tree.Remove(ctx, s.node.Paths.Sandbox(box.ID)); err != nil {
		return err
	}
	s.book.DropSandbox(box.ID)
	box.Erased = true
	s.node.Events.SandboxForgotten(box)
	return nil
}

func (s *Sandboxes) makeNamespaces(_ context.Context, box *pod.Sandbox) error {
	rec := box.Record()
	if rec.Kinds() == 0 {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(s.node.Paths.Pins(), box.ID), 0o700); err != nil {
		return err
	}
	var err error
	box.Pinned, err = s.node.Pins.Make(rec, func(kind pin.Kind) string { return s.node.PinPath(rec, kind) })
	return err
}

// Unpin removes the pins; with the last of them, and the last process inside, the kernel removes the
// namespaces. While a DEL is owed the network's pin stays: without it a plugin cannot find out what to take
// back (the bridge plugin then leaves its masquerading rules).
func (s *Sandboxes) Unpin(_ context.Context, box *pod.Sandbox) error {
	owed := box.Record().OwesNetwork()
	for _, kind := range append([]pin.Kind{pin.PID}, pod.KindsInOrder...) {
		if kind == pin.Net && owed {
			continue
		}
		if err := s.node.Pins.Unpin(s.node.PinPath(box.Record(), kind)); err != nil {
			return err
		}
	}
	err := os.Remove(filepath.Join(s.node.Paths.Pins(), box.ID))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// attach waits until the intent is durable, since what a plugin does may outlive a reboot.
func (s *Sandboxes) attach(ctx context.Context, box *pod.Sandbox) error {
	durable := box.Durable
	box.Durable = nil
	if durable != nil {
		if err := durable(); err != nil {
			return err
		}
	}
	rec := box.Record()
	if rec.Network == nil {
		return nil
	}
	attachment := *rec.Network
	err := s.node.Network.Attach(ctx, &attachment)
	if keep := s.node.ChangeSandbox(box, func(r *pod.SandboxRecord) { r.Network = &attachment }); err == nil {
		err = keep
	}
	if err != nil {
		return err
	}
	return s.writeHosts(box)
}

// detach pays what is owed to the network plugins. A failure stays in the record as a debt.
func (s *Sandboxes) detach(ctx context.Context, box *pod.Sandbox) error {
	rec := box.Record()
	if !rec.OwesNetwork() {
		return nil
	}
	attachment := *rec.Network
	netns, err := netNSToDetach(s.node, rec)
	if err != nil {
		s.node.Log.Warn("network plugins may leave firewall rules of a pod whose network namespace is gone", "sandbox", box.ID, "error", err)
	}
	err = s.node.Network.Detach(ctx, &attachment, netns)
	s.node.NoteSandbox(box, func(r *pod.SandboxRecord) { r.Network = &attachment })
	if err != nil {
		return &debtError{err}
	}
	return nil
}

func (s *Sandboxes) ready(_ context.Context, box *pod.Sandbox) error {
	return s.node.ChangeSandbox(box, func(r *pod.SandboxRecord) {
		r.State, r.Pins = pod.Ready, box.Pinned
		r.Timeline = s.node.Engine.Timeline(r.Object())
	})
}

// debtError marks what is owed to a third party: the pod itself is gone all the same.
type debtError struct{ error }

func (e *debtError) Unwrap() error { return e.error }

// onlyDebts reports whether every error joined in err is a debt.
func onlyDebts(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			if !onlyDebts(e) {
				return false
			}
		}
		return true
	}
	var debt *debtError
	return errors.As(err, &debt)
}
