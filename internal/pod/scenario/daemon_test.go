package scenario_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pinfold-run/pinfold/internal/handler"
	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/pod/lifecycle"
	"github.com/pinfold-run/pinfold/internal/pod/recovery"
	"github.com/pinfold-run/pinfold/internal/record"
	"github.com/pinfold-run/pinfold/internal/steps"
)

// daemon is what a daemon has in memory, made of the real life cycles, books and records. A crash loses it.
type daemon struct {
	w          *world
	book       *pod.Book
	pinder     fakePinder
	engine     *steps.Engine
	places     *pod.Places
	sandboxes  *lifecycle.Sandboxes
	containers *lifecycle.Containers
	debts      *recovery.Debts
	recovery   *recovery.Recovery
	dead       atomic.Bool
	crashed    chan struct{}

	mu sync.Mutex
	// owes are the IDs that a life cycle has put on the list of debts, reported those whose exit was told.
	owes, reported map[string]bool
}

// Add implements lifecycle.Debts.
func (d *daemon) Add(object any) {
	d.mu.Lock()
	switch o := object.(type) {
	case *pod.Sandbox:
		d.owes[o.ID] = true
	case *pod.Container:
		d.owes[o.ID] = true
	}
	d.mu.Unlock()
	d.debts.Add(object)
}

// start starts a daemon on what the one before has left, as package daemon does.
func (w *world) start() *daemon {
	w.held = map[string][]string{}
	d := &daemon{w: w, crashed: make(chan struct{}), owes: map[string]bool{}, reported: map[string]bool{}}
	log := slog.New(slog.DiscardHandler)
	paths := pod.Paths{
		Root: filepath.Join(w.dir, "root"), State: filepath.Join(w.dir, "state"), NetNS: filepath.Join(w.dir, "netns"),
		Pinder: filepath.Join(w.dir, "pinder"),
	}
	for _, dir := range []string{filepath.Join(paths.Root, "pods"), paths.Pins(), paths.Bundles(), paths.Mounts(), paths.NetNS} {
		w.must(os.MkdirAll(dir, 0o700))
	}
	records, err := record.Open(paths.Root, fmt.Sprint("boot ", w.boot))
	w.must(err)
	handlers, err := handler.NewSet(map[string]handler.Runtime{"runc": {Path: filepath.Join(w.dir, "runc")}}, "runc")
	w.must(err)
	p := parts{w, d}
	d.book, d.debts, d.pinder = pod.NewBook(), recovery.NewDebts(log), fakePinder{p}
	d.engine, d.places = steps.NewEngine(steps.StepFunc(d.observe)), &pod.Places{Paths: paths, Handlers: handlers, Log: log}
	base := lifecycle.Base{
		Places: d.places, Book: d.book,
		Records: pod.NewRecords(records, pod.NewEvents(d.book), log), Engine: d.engine, Debts: d, Log: log,
	}
	d.sandboxes, d.containers = lifecycle.New(base, lifecycle.Parts{
		Handlers: handlers, Pins: fakePins{p}, Mounts: fakeMounts{p}, Cgroups: &cgroup.Hierarchies{}, Network: fakeNetwork{p},
		Images: fakeImages{p}, Pinder: d.pinder, Plugins: fakePlugins{p},
	})
	d.recovery = recovery.New(base, recovery.Parts{
		Pinder: d.pinder, Mounts: fakeMounts{p}, Network: fakeNetwork{p}, Images: fakeImages{p}, Handlers: handlers, Pins: fakePins{p},
	}, d.sandboxes, d.containers, d.debts)
	return d
}

// recover is the start of a daemon after its parts are made.
func (d *daemon) recover() error {
	if err := d.recovery.Load(); err != nil {
		return err
	}
	known, err := d.pinder.Containers(context.Background())
	if err != nil {
		return err
	}
	for _, c := range known {
		if c.Exit != nil {
			d.ended(*c.Exit)
		}
	}
	d.containers.Connected()
	d.awaitExits() // meanwhile, in a daemon; here first, so that the transcript has one order
	d.recovery.Reconcile(context.Background())
	return nil
}

// ended takes an exit from pinder.
func (d *daemon) ended(exit wire.Exit) {
	d.mu.Lock()
	d.reported[exit.ID] = true
	d.mu.Unlock()
	d.containers.Ended(exit)
	d.sandboxes.InitEnded(exit)
}

// parkIfDead lets a crashed daemon do nothing any more.
func (d *daemon) parkIfDead() {
	if d.dead.Load() {
		select {}
	}
}

// crash ends the daemon at once. It does not return.
func (d *daemon) crash() {
	if !d.dead.Swap(true) {
		d.w.mu.Lock()
		d.w.now = nil
		d.w.lines = append(d.w.lines, "  the daemon is killed")
		d.w.mu.Unlock()
		close(d.crashed)
	}
	select {}
}

var objectPattern = regexp.MustCompile(`^(?:sandbox (\w+) \([^/]*/([^/]*)/|container (\w+) \(\w+/([^/]*)/)`)

// observe writes the end of each step.
func (d *daemon) observe(op steps.Operation, t steps.Timing) {
	d.parkIfDead()
	d.w.mu.Lock()
	if m := objectPattern.FindStringSubmatch(op.Object); m != nil {
		if id := m[1] + m[3]; d.w.names[id] == "" {
			d.w.names[id] = m[2] + m[4]
		}
	}
	text := "  " + t.Step
	if t.Error != "" {
		text += " FAILED: " + t.Error
	}
	d.say("", op.Name+" "+op.Object, text)
	f := d.w.take("step " + t.Step)
	d.w.mu.Unlock()
	if f != nil {
		d.crash()
	}
}

// say writes a line of the transcript, below the operation in which it was: the newest on the object with that ID, or of
// all. The caller holds w.mu.
func (d *daemon) say(id, header, line string) {
	if found := false; header == "" {
		for _, f := range d.engine.Flights("") {
			own := strings.HasPrefix(f.Object, "sandbox "+id+" ") || strings.HasPrefix(f.Object, "container "+id+" ")
			if own || !found {
				header, found = f.Operation+" "+f.Object, own
			}
		}
	}
	if header != "" && header != d.w.header {
		d.w.header = header
		d.w.lines = append(d.w.lines, header)
	}
	d.w.lines = append(d.w.lines, line)
}

// awaitExits waits until what follows from reported exits has been done.
func (d *daemon) awaitExits() {
	done := func(id string, order *sync.Mutex, final func() bool) bool {
		d.mu.Lock()
		waits := d.reported[id] && !d.owes[id]
		d.mu.Unlock()
		if !waits {
			return true
		}
		if !order.TryLock() {
			return false
		}
		defer order.Unlock()
		return final()
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline) && !d.dead.Load(); time.Sleep(time.Millisecond) {
		ok := true
		for _, c := range d.book.Containers() {
			ok = ok && done(c.ID, &c.Order, func() bool { return c.Reduced || c.Removed || c.Record().State != pod.Exited })
		}
		for _, box := range d.book.Sandboxes() {
			ok = ok && done(box.ID, &box.Order, func() bool { return box.Record().State != pod.Ready })
		}
		if ok {
			return
		}
	}
	if !d.dead.Load() {
		d.w.t.Error("what follows from an exit was not done in time")
	}
}

// pay tries all debts once, in the order of their names.
func (d *daemon) pay() error {
	type turn struct {
		object any
		begin  chan struct{}
		result chan error
	}
	count := d.debts.Count()
	if count == 0 {
		return nil
	}
	turns := make(chan turn, count)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	d.debts.Hurry()
	go d.debts.Run(ctx, func(_ context.Context, object any) error {
		t := turn{object, make(chan struct{}), make(chan error, 1)}
		turns <- t
		<-t.begin
		err := d.recovery.Pay(context.Background(), object)
		t.result <- err
		return err
	})
	var all []turn
	for range count {
		select {
		case t := <-turns:
			all = append(all, t)
		case <-time.After(10 * time.Second):
			return fmt.Errorf("%d of %d debts were tried", len(all), count)
		}
	}
	cancel()
	slices.SortFunc(all, func(a, b turn) int { return strings.Compare(d.w.nameOf(a.object), d.w.nameOf(b.object)) })
	failed := 0
	for _, t := range all {
		close(t.begin)
		select {
		case err := <-t.result:
			if err != nil {
				failed++
				d.w.note(fmt.Sprintf("  %s still owes: %v", d.w.nameOf(t.object), err))
			}
		case <-d.crashed:
			return nil
		}
	}
	for deadline := time.Now().Add(2 * time.Second); d.debts.Count() != failed && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	return nil
}

func (w *world) nameOf(object any) string {
	id := ""
	switch o := object.(type) {
	case *pod.Sandbox:
		id = o.ID
	case *pod.Container:
		id = o.ID
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.names[id]
}

func (w *world) note(line string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.header = ""
	w.lines = append(w.lines, line)
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}
