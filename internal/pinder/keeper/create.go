package keeper

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
	"github.com/pinfold-run/pinfold/internal/pinder/logpump"
	"github.com/pinfold-run/pinfold/internal/pinder/oci"
	"github.com/pinfold-run/pinfold/internal/pinder/ownlog"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// undoGrace is how long the answer to a failed create waits for its undo.
const undoGrace = 5 * time.Second

func checkID(what, id string) error {
	if id == "" || len(id) > 128 {
		return wire.Errorf(wire.CodeInvalidArgument, "%s %q: 1 to 128 characters are allowed", what, id)
	}
	for _, c := range id {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", c) || id[0] == '.' {
			return wire.Errorf(wire.CodeInvalidArgument, "%s %q: only letters, digits, '-', '_' and, not first, '.' are allowed", what, id)
		}
	}
	return nil
}

func checkCreate(r *wire.Create) error {
	if err := checkID("container", r.ID); err != nil {
		return err
	}
	for _, f := range []struct {
		name, path string
		optional   bool
	}{
		{"bundle", r.Bundle, false},
		{"runtime", r.Runtime.Binary, false},
		{"runtime root", r.Runtime.Root, false},
		{"log directory", r.LogDir, true},
		{"log path", r.LogPath, true},
		{"exit file", r.ExitFile, true},
	} {
		if !filepath.IsAbs(f.path) && (f.path != "" || !f.optional) {
			return wire.Errorf(wire.CodeInvalidArgument, "container %s: %s %q is not absolute", r.ID, f.name, f.path)
		}
	}
	return nil
}

// create makes a container, up to and including the runtime's "create". A repetition of a request gets the first one's
// result.
func (k *Keeper) create(r wire.Create) (*wire.Created, error) {
	if err := checkCreate(&r); err != nil {
		return nil, err
	}
	deadline := oci.DeadlineAfter(r.Runtime.TimeoutMillis)
	if _, err := k.lookup(r.ID, ""); err != nil { // a repeat needs none
		free, err := k.admit("create: container "+r.ID, createDescriptors)
		if err != nil {
			return nil, err
		}
		defer free()
	}
	p, err := k.newProcess(meta{
		ID: r.ID, Phase: wire.PhaseCreating, Runtime: r.Runtime, Bundle: r.Bundle,
		TTY: r.TTY, LogDir: r.LogDir, LogPath: r.LogPath, ExitFile: r.ExitFile,
	})
	if err != nil {
		return nil, wire.Errorf(wire.CodeInternal, "create: container %s: %v", r.ID, err)
	}
	for !k.remember(p) {
		if created, err := k.existing(&r, deadline); created != nil || err != nil {
			p.state.close()
			return created, err
		}
	}
	c := &creation{p, &r, deadline}
	if err := c.clearRemains(); err != nil {
		p.remove() // the runtime's container stays: it may be a running one
		p.unlockOp()
		return nil, err
	}
	err = c.run()
	if err == nil {
		defer p.unlockOp()
		return p.created(), nil
	}
	if k.reaper.Gone() {
		// Nothing is undone here: the next supervisor undoes an incomplete creation, and gives the result of a
		// complete one to the repeated request. The lock is kept, so no other request finds the container in between.
		return nil, err
	}
	undone := make(chan struct{})
	go func() {
		defer close(undone)
		defer p.unlockOp()
		k.undoCreate(p)
	}()
	// The runtime may hang again, so the answer does not wait for the undo without a limit. A later request for this
	// ID waits for the lock.
	select {
	case <-undone:
	case <-time.After(undoGrace):
	}
	return nil, err
}

func (p *process) created() *wire.Created {
	m := p.snapshot()
	return &wire.Created{Process: m.Process, Cgroup: m.Cgroup.Path}
}

// existing waits for the operation that has the ID. It returns nil and nil if the container is gone then.
func (k *Keeper) existing(r *wire.Create, deadline time.Time) (*wire.Created, error) {
	p, err := k.lookup(r.ID, "")
	if err != nil {
		return nil, nil // gone
	}
	if err := p.lockOp(deadline); err != nil {
		return nil, err
	}
	defer p.unlockOp()
	m := p.snapshot()
	switch {
	case m.Phase == wire.PhaseDeleted:
		return nil, nil // gone
	case m.Bundle == r.Bundle && m.PID != 0:
		return p.created(), nil
	}
	return nil, wire.Errorf(wire.CodeAlreadyExists, "create: container %s: exists with bundle %s", r.ID, m.Bundle)
}

// undoCreate removes what a failed creation left. The caller holds p's op lock.
func (k *Keeper) undoCreate(p *process) {
	if err := p.deleteInRuntime(p.snapshot().Runtime, time.Now().Add(30*time.Second)); err != nil {
		ownlog.Printf("undo create: container %s: %v", p.snapshot().ID, err)
	}
	p.remove()
}

// creation is one request for a container.
type creation struct {
	p        *process
	r        *wire.Create
	deadline time.Time
}

// run prepares the streams, calls the runtime, and begins to watch.
func (c *creation) run() error {
	p, r := c.p, c.r
	fail := func(step string, err error) error {
		return wire.Errorf(logCode(err), "%s: container %s: %v", step, r.ID, err)
	}
	child, err := c.prepareStreams()
	if err != nil {
		return fail("create", err)
	}
	defer child.Close()
	if err := p.keep(); err != nil {
		return fail("create", err)
	}
	call := oci.Call{
		Step: "create", Deadline: c.deadline,
		Stdin: child.Stdin, Stdout: child.Stdout, Stderr: child.Stderr,
		Args: []string{"create", "--bundle", r.Bundle, "--pid-file", p.pidFile()},
	}
	var console *oci.ConsoleSocket
	if r.TTY {
		if console, err = p.keeper.calls.NewConsoleSocket(); err != nil {
			return fail("create", err)
		}
		defer console.Close()
		call.Args = append(call.Args, "--console-socket", console.Path)
	} else if h := p.handles.get(kindStderr); h != nil {
		call.Errors = h.FD
	}
	call.Args = append(call.Args, r.ID)
	if err := (&launch{p, r.Runtime, call, console}).run(); err != nil {
		return err
	}
	p.preparePump()
	if err := p.startPump(); err != nil {
		ownlog.Printf("%s: its log: %v", p.describe(), err)
	}
	go p.exit.watch()
	return nil
}

// clearRemains removes a container of this ID that no supervisor knows: its create went on after both of pinder's
// processes and the daemon were killed. If something has run in it, clearRemains returns an error and removes nothing.
func (c *creation) clearRemains() error {
	p, r := c.p, c.r
	p.keeper.unfinished.Await(r.ID, c.deadline)
	if _, err := os.Lstat(filepath.Join(r.Runtime.Root, r.ID)); err != nil {
		return nil // there is none, or the runtime will say so
	}
	state, err := p.keeper.calls.State(r.Runtime, r.ID, c.deadline)
	if err == nil && state.Status != "created" && state.Status != "stopped" {
		return wire.Errorf(wire.CodeAlreadyExists, "create: container %s: is known to the runtime, and %s", r.ID, state.Status)
	}
	if err := p.keeper.calls.Delete(r.Runtime, r.ID, true, c.deadline); err != nil {
		return wrapCall("delete", p, err)
	}
	return nil
}

// prepareStreams makes what has to exist before the runtime is called: log, pipes and console.
func (c *creation) prepareStreams() (oci.ChildEnds, error) {
	p, r := c.p, c.r
	if r.LogPath != "" {
		log, _, err := logpump.Open(r.LogDir, r.LogPath)
		if err != nil {
			return oci.ChildEnds{}, err
		}
		p.handles.set(kindLog, &descriptor.Handle{FD: int(log)})
	}
	private, err := logpump.NewPrivate()
	if err != nil {
		return oci.ChildEnds{}, err
	}
	p.handles.set(kindPrivate, &descriptor.Handle{FD: private.Read})
	if r.TTY {
		return oci.ChildEnds{}, nil
	}
	child, ours, err := oci.Pipes(r.Stdin, r.Owner)
	if err != nil {
		return child, err
	}
	for kind, fd := range ours {
		h := &descriptor.Handle{FD: fd}
		if kind != kindStdin {
			if h, err = descriptor.Pollable(fd, kind); err != nil {
				child.Close()
				return child, err
			}
		}
		p.handles.set(kind, h)
	}
	return child, nil
}
