package recovery

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/pin"
)

// Difference is one thing that the records say and that is not so in the kernel, in the plugins' stores or on disk, or the
// reverse.
type Difference struct {
	// Object is what it is about: "sandbox 4f1c…", "address 10.210.0.7".
	Object string `json:"object"`
	// Finding says what is wrong.
	Finding string `json:"finding"`
	// Action says what will be done about it, and when.
	Action string `json:"action"`
}

// sight is what one look found, and the objects that it left out because they are between two states.
type sight struct {
	found  []Difference
	passed map[string]bool
}

// What happens to a difference.
const (
	retried   = "is retried with back-off; --repair tries now"
	repaired  = "--repair removes it; so does the next start of pinfoldd"
	reported  = "left alone: the kubelet replaces the pod"
	notOurs   = "left alone: it may belong to another runtime of this node"
	forPeople = "left for you to look at"
)

// Check compares all that can be compared. What is between two states is no difference. So objects with an operation in
// flight are left out, and a difference counts only if it is still there a moment later: when a process ends, the kernel
// knows it first, then pinder, and the records last. The error joins what could not be looked at.
func (r *Recovery) Check(ctx context.Context) ([]Difference, error) {
	seen, err := r.look(ctx)
	for until := time.Now().Add(betweenStates); len(seen.found) > 0 && time.Now().Before(until); {
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-time.After(lookAgain):
		}
		var now sight
		now, err = r.look(ctx)
		seen = lasting(seen, now)
	}
	return slices.DeleteFunc(seen.found, func(d Difference) bool { return seen.passed[d.Object] }), err
}

const (
	// betweenStates is how long something may be between two states without an operation in flight.
	betweenStates = 2 * time.Second
	lookAgain     = 200 * time.Millisecond
)

// lasting are the differences of objects that differ now and did before. An object that is left out now keeps the
// differences of before.
func lasting(before, now sight) sight {
	of := map[string]bool{}
	kept := sight{passed: now.passed}
	for _, d := range before.found {
		of[d.Object] = true
		if now.passed[d.Object] {
			kept.found = append(kept.found, d)
		}
	}
	for _, d := range now.found {
		if of[d.Object] {
			kept.found = append(kept.found, d)
		}
	}
	return kept
}

// look compares once.
func (r *Recovery) look(ctx context.Context) (sight, error) {
	c := &checker{Recovery: r, sight: sight{passed: map[string]bool{}}}
	c.pinder(ctx)
	for _, box := range r.Book.Sandboxes() {
		if r.busy(box.ID) {
			c.passed[box.Record().Object()] = true
			continue
		}
		c.sandbox(box.Record())
	}
	for _, ctr := range r.Book.Containers() {
		if r.busy(ctr.ID) || r.busy(ctr.Sandbox) {
			c.passed[ctr.Record().Object()] = true
			continue
		}
		c.container(ctr)
	}
	c.unowned()
	c.stores()
	c.quarantined()
	return c.sight, errors.Join(c.failed...)
}

// Repair tries all debts at once, and removes remains that have no record. It does not remove what is alive: see
// RemoveAlive. Another Check finds what is left.
func (r *Recovery) Repair(ctx context.Context) error {
	r.debts.Hurry()
	known, err := r.Pinder.Containers(ctx)
	if err != nil {
		return err
	}
	r.setKnown(known)
	r.removeRemains()
	return nil
}

// checker collects the differences of one Check.
type checker struct {
	*Recovery
	sight
	known  map[string]wire.Container
	failed []error
}

func (c *checker) differ(action, object, finding string, args ...any) {
	c.found = append(c.found, Difference{Object: object, Finding: fmt.Sprintf(finding, args...), Action: action})
}

func (c *checker) couldNotTell(what string, err error) {
	if err != nil {
		c.failed = append(c.failed, fmt.Errorf("%s: %w", what, err))
	}
}

// pinder asks which containers pinder has.
func (c *checker) pinder(ctx context.Context) {
	list, err := c.Pinder.Containers(ctx)
	c.couldNotTell("pinder's containers", err)
	if err != nil {
		return
	}
	c.setKnown(list)
	c.known = *c.unrecorded.known.Load()
}

func (c *checker) sandbox(rec *pod.SandboxRecord) {
	name := rec.Object()
	switch rec.State {
	case pod.Ready:
		c.readySandbox(name, rec)
	case pod.Creating, pod.Removing:
		if !rec.OwesNetwork() {
			c.differ(retried, name, "it is %s, and no operation is in progress", rec.State)
		}
	case pod.Stopped:
		if rec.Lost {
			break // see Recovery.lostAlive
		}
		for kind, path := range c.Places.NamespacePins(rec) {
			if kind == pin.Net.String() && rec.OwesNetwork() {
				continue // kept for the plugins
			}
			if _, err := os.Lstat(path); err == nil {
				c.differ(retried, name, "it is stopped, but its %s namespace is still pinned at %s", kind, path)
			}
		}
	}
	if rec.Reason != "" {
		c.differ(reported, name, "it is not ready: %s", rec.Reason)
	}
	if rec.State != pod.Ready && rec.OwesNetwork() {
		c.differ(retried, name, "a CNI DEL of network %s is owed (tried %d times; last: %s)", rec.Network.Network,
			rec.Network.Attempts, orNothing(rec.Network.LastError))
	}
}

func (c *checker) readySandbox(name string, rec *pod.SandboxRecord) {
	if reason := c.sandboxes.Broken(rec); reason != "" {
		c.differ(reported, name, "it is recorded as ready, but %s", reason)
		return
	}
	if rec.Mappings() != nil && rec.Kinds()&pin.Net != 0 {
		owned, err := c.ownsNetwork(rec)
		c.couldNotTell(name+": owner of its network namespace", err)
		if err == nil && !owned {
			c.differ(reported, name, "its network namespace does not belong to its user namespace")
		}
	}
	if rec.Network == nil {
		return
	}
	have, err := c.addresses(rec)
	c.couldNotTell(name+": addresses", err)
	for _, ip := range rec.Network.IPs() {
		if err == nil && !slices.Contains(have, ip) {
			c.differ(reported, name, "its address %s is on no interface in it", ip)
		}
	}
}

func (c *checker) ownsNetwork(rec *pod.SandboxRecord) (bool, error) {
	network, err := pin.Open(c.Places.PinPath(rec, pin.Net))
	if err != nil {
		return false, err
	}
	defer network.Close()
	owner, err := network.Owner()
	if err != nil {
		return false, err
	}
	defer owner.Close()
	user, err := pin.Open(c.Places.PinPath(rec, pin.User))
	if err != nil {
		return false, err
	}
	defer user.Close()
	return owner.Same(user), nil
}

func (c *checker) container(ctr *pod.Container) {
	rec := ctr.Record()
	name := rec.Object()
	state, inPinder := c.known[rec.ID]
	switch rec.State {
	case pod.Created, pod.Running:
		if ctr.Stale.Load() {
			return // its process is made anew when it is started
		}
		if !rec.Process.Alive() && (!inPinder || state.Exit == nil) {
			c.differ(reported, name, "it is recorded as %s, but its process (pid %d) is gone", rec.State, rec.Process.PID)
		}
		if c.known != nil && !inPinder {
			c.differ("the next start of pinfoldd hands it to pinder again", name, "pinder does not know it")
		}
		if inPinder && state.LogLost {
			c.differ(forPeople, name, "its output is not logged any more: pinfoldd and pinder had been killed at once")
		}
	case pod.Creating, pod.Removing:
		c.differ(retried, name, "it is %s, and no operation is in progress", rec.State)
	case pod.Exited:
		if c.debts.isNew(ctr) {
			return // what it needs no more is being removed
		}
		if _, err := os.Lstat(c.Places.Bundle(rec.ID)); err == nil {
			c.differ(retried, name, "it has ended, but its bundle is still there")
		}
	}
}

// unowned reports names of this instance without a record.
func (c *checker) unowned() {
	for id := range c.ids() {
		if what := c.alive(id); what != "" {
			c.differ("left alone; `pinfold check --remove "+id+"` ends and removes it", id, "there is %s, but no record", what)
			continue
		}
		c.differ(repaired, id, "there are pins, mounts or a bundle of it, but no record")
	}
	ids, err := c.Records.Sandboxes()
	c.couldNotTell("pod directories", err)
	for _, id := range ids {
		if !c.recorded(id) {
			c.differ("the next start of pinfoldd removes it", "directory "+c.Places.Sandbox(id), "it belongs to no pod")
		}
	}
}

// stores looks into the address stores of the plugin host-local, which is the only one with a known form: one file for each
// address, with the holder's ID in its first line.
func (c *checker) stores() {
	for dir := range c.storeDirs() {
		files, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		c.couldNotTell("address store", err)
		for _, f := range files {
			c.storedAddress(dir, f.Name())
		}
	}
}

func (c *checker) storedAddress(dir, file string) {
	if strings.HasPrefix(file, "last_reserved_ip") || file == "lock" {
		return
	}
	data, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return // the plugin has removed it meanwhile
	}
	id, _, _ := strings.Cut(strings.TrimSpace(string(data)), "\n")
	if id = strings.TrimSpace(id); !c.recorded(id) && !c.busy(id) {
		c.differ(notOurs, "address "+file, "the store %s has it held by %s, which is no pod here", dir, id)
	}
}

// quarantined reports records that were moved because they could not be read.
func (c *checker) quarantined() {
	files, err := os.ReadDir(filepath.Join(c.Places.Root, "quarantine"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.couldNotTell("quarantine", err)
	}
	for _, f := range files {
		c.differ(forPeople, "record "+f.Name(), "it could not be read and was moved to the quarantine directory")
	}
	for _, q := range c.Images.Quarantined() {
		c.differ(forPeople, "image record "+q.File, "it could not be read: %s", q.Reason)
	}
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}
