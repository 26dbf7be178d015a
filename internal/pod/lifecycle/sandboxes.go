package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/fault"
	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/steps"
)

// Sandboxes runs, changes, stops and removes pods. One per daemon.
type Sandboxes struct {
	*Health
	base       Base
	handlers   Handlers
	containers *Containers
	told       told
	mounts     shmMounts
	steps      sandboxSteps
	runs       steps.Joint[string]
	ends       steps.Joint[struct{}]
	levels     levels
}

// sandboxSteps are the steps of RunPodSandbox. The other operations on sandboxes undo some or all of them.
type sandboxSteps struct {
	record     sandboxRecord
	namespaces sandboxNamespaces
	files      sandboxFiles
	network    sandboxNetwork
	sysctls    sandboxSysctls
	init       sandboxInit
	plugins    sandboxPlugins
	ready      sandboxReady
}

func newSandboxes(base Base, parts Parts, containers *Containers) *Sandboxes {
	places, records, log := base.Places, base.Records, base.Log
	view := view{places, parts.Mounts}
	hosts := hostsFile{view, parts.Mounts}
	labels := labels{base.Host}
	told := told{parts.Plugins, log}
	return &Sandboxes{
		Health: containers.health, base: base, handlers: parts.Handlers, containers: containers, told: told, mounts: parts.Mounts,
		steps: sandboxSteps{
			record:     sandboxRecord{places, base.Book, records, parts.Pins, parts.Cgroups, log},
			namespaces: sandboxNamespaces{places, parts.Pins},
			files:      sandboxFiles{places, view, parts.Mounts, labels, hosts},
			network:    sandboxNetwork{places, records, parts.Network, parts.Pins, hosts, base.Debts, log},
			sysctls:    sandboxSysctls{places, parts.Pins},
			init: sandboxInit{
				places: places, records: records, runtimes: containers.runtimes, view: view, labels: labels,
				binary: &initBinary{paths: places.Paths, label: ocispec.SELinuxSharedLabel(base.Host)},
				mounts: parts.Mounts, pins: parts.Pins, cgroups: parts.Cgroups, pinder: parts.Pinder, log: log,
			},
			plugins: sandboxPlugins{told},
			ready:   sandboxReady{records, base.Engine},
		},
	}
}

// Run makes a pod and returns its ID. A request for a pod that is being made joins that operation; one for a pod that
// is ready returns it. When ctx ends first, the work goes on, and a repeated request finds it. handler "" is the default
// one.
func (s *Sandboxes) Run(ctx context.Context, config *runtimeapi.PodSandboxConfig, handler string) (string, error) {
	parsed := ocispec.ParsePod(config)
	if err := ocispec.ValidateSandbox(s.base.Host, parsed); err != nil {
		return "", err
	}
	runtime, err := s.handlers.Find(ctx, handler)
	if err != nil {
		return "", err
	}
	rec := &pod.SandboxRecord{ID: pod.NewID(), State: pod.Creating, Created: time.Now(), Config: parsed, Handler: runtime.Name}
	rec.Means = s.base.Places.MeansNow(rec.ID, runtime)
	key := rec.Identity()
	id, err := s.runs.Do(ctx, key, func(ctx context.Context) (string, error) {
		// A pod that has lost its namespaces is not ready any more. It is replaced.
		if box := s.base.Book.Ready(key); box != nil && s.Current(box).State == pod.Ready {
			return box.ID, nil
		}
		if err := s.steps.network.plan(rec); err != nil {
			return "", err
		}
		defer s.levels.choose(s.base.Host.SELinux, s.base.Book, rec)()
		return rec.ID, s.run(ctx, pod.NewSandbox(rec))
	})
	return id, stillRunning(ctx, s.base.Engine, err, key)
}

func (s *Sandboxes) run(ctx context.Context, box *pod.Sandbox) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	box.Interrupt = cancel
	box.Order.Lock()
	defer box.Order.Unlock()
	err := s.base.Engine.Run(ctx, s.runOperation(box))
	var failed *steps.Error
	if errors.As(err, &failed) && failed.Undo != nil {
		s.base.Debts.Add(box)
	}
	return err
}

func (s *Sandboxes) runOperation(box *pod.Sandbox) steps.Operation {
	step := &s.steps
	return steps.Operation{
		Name:   "RunPodSandbox",
		Object: box.Record().Object(),
		Steps: []steps.Step{
			{Name: "record", Do: on(step.record.Do, box), Undo: on(step.record.Undo, box), Owner: true},
			{Name: "namespaces", Do: on(step.namespaces.Do, box), Undo: on(step.namespaces.Undo, box)},
			{Name: "files", Do: on(step.files.Do, box), Undo: on(step.files.Undo, box)},
			{Name: "network", Do: on(step.network.Do, box), Undo: on(step.network.Undo, box)},
			{Name: "sysctls", Do: on(step.sysctls.Do, box)}, // some are those of an interface
			{Name: "init", Do: on(step.init.Do, box), Undo: on(step.init.Undo, box)},
			{Name: "plugins", Do: on(step.plugins.Do, box), Undo: on(step.plugins.Undo, box)},
			{Name: "ready", Do: on(step.ready.Do, box)},
		},
	}
}

// InitEnded takes an exit that pinder reports, of any process. It returns at once. A pod whose PID 1 has ended, and
// with it all processes in the pod's PID namespace, is not ready any more: no process can join that namespace
// (pid_namespaces(7)). What it holds is removed as at the next start of the daemon.
func (s *Sandboxes) InitEnded(exit wire.Exit) {
	box, err := s.base.Book.Sandbox(exit.ID)
	if err != nil || box.ID != exit.ID || exit.ExecID != "" {
		return
	}
	go fault.Logged(s.base.Log, func() {
		<-s.containers.connected
		box.Order.Lock()
		defer box.Order.Unlock()
		if rec := box.Record(); rec.SharesPID() && !rec.Init.Alive() {
			s.lost(box, initEnded)
		}
	}, "pod_id", box.ID)
}

// SetPodCIDRs takes the node's address ranges, with commas in between, for network plugins that ask for them. They are
// for pods that are made from now on. "" means none. ErrInvalidArgument if a part is not a range.
func (s *Sandboxes) SetPodCIDRs(list string) error {
	rec := pod.NodeRecord{}
	for part := range strings.SplitSeq(list, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(part)
		if err != nil {
			return fmt.Errorf("runtime_config.network_config.pod_cidr: %q is not an address range: %w", part, errdefs.ErrInvalidArgument)
		}
		rec.PodCIDRs = append(rec.PodCIDRs, prefix)
	}
	return s.base.Records.PutNode(&rec)
}
