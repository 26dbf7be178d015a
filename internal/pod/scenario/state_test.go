package scenario_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pinfold-run/pinfold/internal/pod"
)

// describe writes what the daemon has in its book, and what the node has.
func (w *world) describe(d *daemon) {
	var lines []string
	if d != nil {
		lines = d.objects()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	add := func(title string, things []string) {
		if len(things) > 0 {
			for i := range things {
				things[i] = w.plain(things[i])
			}
			slices.Sort(things)
			lines = append(lines, title+": "+strings.Join(things, ", "))
		}
	}
	var pins, mounts, running []string
	for path := range w.pins {
		id := filepath.Base(filepath.Dir(path))
		if kindOf(path) == "net" {
			id = strings.TrimPrefix(filepath.Base(path), "pinfold-")
		}
		pins = append(pins, id+" "+kindOf(path))
	}
	for id, names := range w.mounts {
		mounts = append(mounts, id+" "+strings.Join(names, "+"))
	}
	for id, c := range w.containers {
		running = append(running, id+" "+c.phase)
	}
	add("pins", pins)
	add("mounts", mounts)
	add("layers held for", slices.Collect(maps.Keys(w.held)))
	add("attached", slices.Collect(maps.Keys(w.attached)))
	add("pinder has", running)
	add("directories", w.directories())
	if d != nil && d.debts.Count() > 0 {
		lines = append(lines, fmt.Sprintf("debts: %d", d.debts.Count()))
	}
	if len(lines) == 0 {
		lines = []string{"nothing"}
	}
	w.lines = append(w.lines, lines...)
}

// objects are the pods and containers of the book.
func (d *daemon) objects() []string {
	var lines []string
	boxes := d.book.Sandboxes()
	slices.SortFunc(boxes, func(a, b *pod.Sandbox) int { return strings.Compare(d.w.nameOf(a), d.w.nameOf(b)) })
	for _, box := range boxes {
		rec := box.Record()
		line := fmt.Sprintf("pod %s: %s%s", box.ID, rec.State, rec.Because())
		if rec.OwesNetwork() && rec.State != pod.Ready {
			line += ", owes the network"
		}
		lines = append(lines, line)
		containers := d.book.ContainersOf(box.ID)
		slices.SortFunc(containers, func(a, b *pod.Container) int { return strings.Compare(d.w.nameOf(a), d.w.nameOf(b)) })
		for _, c := range containers {
			rec := c.Record()
			line := fmt.Sprintf("container %s of %s: %s", c.ID, box.ID, rec.State)
			if rec.Exit.Reason != "" {
				line += fmt.Sprintf(" %d %s", rec.Exit.Code, rec.Exit.Reason)
			}
			if rec.Exit.Message != "" {
				line += " (" + rec.Exit.Message + ")"
			}
			lines = append(lines, line)
		}
	}
	return lines
}

// directories are those that belong to one pod or container.
func (w *world) directories() []string {
	var found []string
	for _, at := range []struct{ name, dir string }{
		{"record of", "root/pods/*"}, {"layer of", "root/pods/*/layers/*"}, {"bundle of", "state/bundles/*"}, {"pins of", "state/ns/*"},
	} {
		paths, _ := filepath.Glob(filepath.Join(w.dir, at.dir))
		for _, path := range paths {
			if info, err := os.Stat(path); err == nil && info.IsDir() {
				found = append(found, at.name+" "+filepath.Base(path))
			}
		}
	}
	return found
}
