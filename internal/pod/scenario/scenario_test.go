package scenario_test

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

var rewrite = flag.Bool("rewrite", false, "write the transcripts of testdata instead of comparing with them")

// TestScenarios runs the files of testdata. Each is a list of commands, a line of dashes behind each, and what
// was to be seen of it: the steps in the order in which they ended, what each asked of the parts of the node
// before that, and the result. See README.md.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	bin := t.TempDir() // a checkpoint looks for criu
	if err := os.WriteFile(filepath.Join(bin, "criu"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := newWorld(t).play(string(want))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if !bytes.Equal(want, []byte(got)) {
				t.Errorf("%s: go test -run TestScenarios -rewrite shows with git diff what is another now\n%s", file, firstDifference(string(want), got))
			}
		})
	}
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return fmt.Sprintf("line %d:\nwant %q\ngot  %q", i+1, w[i], g[i])
		}
	}
	return "one is longer"
}

func newWorld(t *testing.T) *world {
	w := &world{
		t: t, dir: t.TempDir(), boot: 1, inodes: 1, waiting: newWaiting(),
		names: map[string]string{}, pins: map[string]uint64{}, mounts: map[string][]string{}, held: map[string][]string{},
		attached: map[string]bool{}, containers: map[string]*container{},
	}
	w.must(os.WriteFile(filepath.Join(w.dir, "runc"), []byte("#!/bin/sh\necho '{}'\n"), 0o700))
	w.must(os.WriteFile(filepath.Join(w.dir, "pinder"), []byte("pinder"), 0o700))
	t.Cleanup(func() {
		for _, process := range w.processes {
			_ = process.Kill()
			_, _ = process.Wait() // it may have been waited for
		}
	})
	w.now = w.start()
	w.must(w.now.recover())
	return w
}

// play runs the commands of a scenario and returns it with what came of them.
func (w *world) play(scenario string) string {
	var out strings.Builder
	command := true
	w.lines = nil
	for line := range strings.Lines(scenario) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "----":
			command = false
		case line == "" && !command:
			command = true
			out.WriteString("\n")
		case command && (line == "" || strings.HasPrefix(line, "#")):
			out.WriteString(line + "\n")
		case command:
			fmt.Fprintf(&out, "%s\n----\n%s", line, w.run(line))
		}
	}
	return out.String()
}

// run runs one command and returns its transcript.
func (w *world) run(line string) string {
	fields := strings.Fields(line)
	w.mu.Lock()
	w.lines, w.header = nil, ""
	w.mu.Unlock()
	do, ok := w.commands()[fields[0]]
	if !ok {
		w.t.Fatalf("unknown command %q", line)
	}
	result := make(chan error, 1)
	d := w.now
	crashed := make(chan struct{})
	if d != nil {
		crashed = d.crashed
	}
	go func() {
		err := do(d, fields[1:])
		if d != nil && !slices.Contains([]string{"background", "timeout", "release"}, fields[0]) {
			d.awaitExits()
		}
		result <- err
	}()
	select {
	case err := <-result:
		if err != nil {
			w.note("error: " + classed(err))
		}
	case <-crashed:
	case <-time.After(30 * time.Second):
		w.t.Fatalf("%s: no end; so far:\n%s", line, strings.Join(w.lines, "\n"))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.lines) == 0 {
		return "ok\n"
	}
	return w.plain(strings.Join(w.lines, "\n") + "\n")
}

func classed(err error) string {
	for _, class := range []struct {
		name string
		is   func(error) bool
	}{
		{"InvalidArgument", errdefs.IsInvalidArgument},
		{"NotFound", errdefs.IsNotFound},
		{"FailedPrecondition", errdefs.IsFailedPrecondition},
		{"Aborted", errdefs.IsAborted},
	} {
		if class.is(err) {
			return err.Error() + " [" + class.name + "]"
		}
	}
	return err.Error()
}

var (
	durations = regexp.MustCompile(`(after|since) [0-9.]+[µnm]?s\b`)
	pids      = regexp.MustCompile(`\bpid \d+|process \d+`)
	objects   = regexp.MustCompile(`(sandbox|container) (\S+) \(([^)]*)\)`)
)

// plain takes out of a text what differs from run to run.
func (w *world) plain(text string) string {
	for id, name := range w.names {
		text = strings.ReplaceAll(strings.ReplaceAll(text, "unreadable-"+id, name), id, name)
	}
	text = strings.ReplaceAll(text, w.dir, "DIR")
	text = durations.ReplaceAllString(text, "$1 T")
	text = pids.ReplaceAllString(text, "pid N")
	return objects.ReplaceAllString(text, "$2")
}

// id is the ID of a pod or container by its name, whatever became of it.
func (w *world) id(name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	newest := ""
	if w.now != nil {
		for _, box := range w.now.book.Sandboxes() {
			if w.names[box.ID] == name {
				newest = box.ID
			}
		}
		for _, c := range w.now.book.Containers() {
			if w.names[c.ID] == name {
				newest = c.ID
			}
		}
	}
	for id, known := range w.names {
		if known == name && newest == "" {
			newest = id
		}
	}
	if newest == "" {
		return name
	}
	return newest
}

type command func(d *daemon, args []string) error

func (w *world) commands() map[string]command {
	ctx := w.requests
	return map[string]command{
		"run":        func(d *daemon, a []string) error { _, err := d.sandboxes.Run(ctx, podConfig(a), ""); return err },
		"stop-pod":   func(d *daemon, a []string) error { return d.sandboxes.Stop(ctx, w.id(a[0])) },
		"remove-pod": func(d *daemon, a []string) error { return d.sandboxes.Remove(ctx, w.id(a[0])) },
		"create": func(d *daemon, a []string) error {
			_, err := d.containers.Create(ctx, w.id(a[0]), nil, containerConfig(a[1:]))
			return err
		},
		"update-pod": func(d *daemon, a []string) error {
			shares, _ := strconv.ParseInt(a[1], 10, 64)
			return d.sandboxes.UpdateResources(ctx, w.id(a[0]), nil, &runtimeapi.LinuxContainerResources{CpuShares: shares})
		},
		"start":  func(d *daemon, a []string) error { return d.containers.Start(ctx, w.id(a[0])) },
		"stop":   func(d *daemon, a []string) error { return d.containers.Stop(ctx, w.id(a[0]), grace(a)) },
		"remove": func(d *daemon, a []string) error { return d.containers.Remove(ctx, w.id(a[0])) },
		"update": func(d *daemon, a []string) error {
			shares, _ := strconv.ParseInt(a[1], 10, 64)
			return d.containers.UpdateResources(ctx, w.id(a[0]), &runtimeapi.LinuxContainerResources{CpuShares: shares})
		},
		"checkpoint": func(d *daemon, a []string) error {
			return d.containers.Checkpoint(ctx, w.id(a[0]), filepath.Join(w.dir, a[0]+".tar"), 0)
		},
		"exit":       func(_ *daemon, a []string) error { w.end(w.id(a[0]), exitOf(a)); return nil },
		"stubborn":   func(_ *daemon, a []string) error { w.containers[w.id(a[0])].stubborn = true; return nil },
		"fail":       w.order,
		"crash":      w.order,
		"heal":       func(*daemon, []string) error { w.faults = nil; return nil },
		"unpin":      w.unpin,
		"tear":       w.tear,
		"restart":    w.restart,
		"hang":       w.order,
		"background": w.background, "await": w.await, "timeout": w.timeout, "release": w.release, "lose": w.lose,
		"remove-unrecorded": func(d *daemon, a []string) error { return d.recovery.RemoveAlive(ctx, w.id(a[0])) },
		"pay":               func(d *daemon, _ []string) error { return d.pay() },
		"state":             func(d *daemon, _ []string) error { w.describe(d); return nil },
	}
}

func grace(args []string) time.Duration {
	if len(args) < 2 {
		return 0
	}
	d, _ := time.ParseDuration(args[1])
	return d
}

func exitOf(args []string) wire.Exit {
	exit := wire.Exit{}
	if len(args) > 1 {
		exit.Code, _ = strconv.Atoi(args[1])
	}
	exit.OOMKilled = slices.Contains(args, "oom")
	return exit
}

func podConfig(args []string) *runtimeapi.PodSandboxConfig {
	options := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}
	config := &runtimeapi.PodSandboxConfig{
		Metadata:  &runtimeapi.PodSandboxMetadata{Name: args[0], Namespace: "default", Uid: "uid-" + args[0]},
		DnsConfig: &runtimeapi.DNSConfig{},
		Linux:     &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: options}},
	}
	for _, option := range args[1:] {
		switch key, value, _ := strings.Cut(option, "="); key {
		case "shared-pid":
			options.Pid = runtimeapi.NamespaceMode_POD
		case "host-network":
			options.Network = runtimeapi.NamespaceMode_NODE
		case "userns":
			line := []*runtimeapi.IDMapping{{HostId: 100000, Length: 65536}}
			options.UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: line, Gids: line}
		case "sysctl":
			config.Linux.Sysctls = map[string]string{value: "1"}
		}
	}
	return config
}

func containerConfig(args []string) *runtimeapi.ContainerConfig {
	config := &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: args[0]}, Image: &runtimeapi.ImageSpec{Image: "busybox"},
	}
	for _, option := range args[1:] {
		switch key, value, _ := strings.Cut(option, "="); key {
		case "image":
			config.Image.Image = value
		case "volume":
			config.Mounts = append(config.Mounts, &runtimeapi.Mount{HostPath: value, ContainerPath: "/volume"})
		case "image-volume":
			config.Mounts = append(config.Mounts, &runtimeapi.Mount{
				Image: &runtimeapi.ImageSpec{Image: value}, ContainerPath: "/image", Readonly: true,
			})
		case "nosuch":
			config.Linux = &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{Privileged: true}}
		}
	}
	return config
}

// restart kills the daemon, if one runs, and starts another. "reboot" restarts the node.
func (w *world) restart(old *daemon, args []string) error {
	if old != nil {
		old.dead.Store(true)
	}
	if slices.Contains(args, "reboot") {
		w.reboot()
	}
	if slices.Contains(args, "pinder-too") {
		w.containers = map[string]*container{}
	}
	d := w.start()
	w.mu.Lock()
	w.now = d
	w.mu.Unlock()
	if err := d.recover(); err != nil {
		return err
	}
	d.awaitExits()
	w.describe(d)
	return nil
}

func (w *world) reboot() {
	w.now = nil
	for id := range maps.Clone(w.containers) {
		w.containers[id].exitFile = ""
		w.end(id, wire.Exit{})
	}
	w.boot++
	w.pins, w.mounts, w.containers = map[string]uint64{}, map[string][]string{}, map[string]*container{}
	w.must(os.RemoveAll(filepath.Join(w.dir, "state")))
	w.must(os.RemoveAll(filepath.Join(w.dir, "netns")))
}

// order takes "fail CALL [TIMES] TEXT", "crash before CALL", "crash after CALL" and "crash after step STEP".
func (w *world) order(_ *daemon, args []string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch args[0] {
	case "before":
		w.faults = append(w.faults, &fault{call: args[1], times: 1, crash: "before"})
	case "call":
		w.faults = append(w.faults, &fault{call: args[1], times: 1, hangs: true})
	case "after":
		w.faults = append(w.faults, &fault{call: strings.Join(args[1:], " "), times: 1, crash: "after"})
	default:
		f := &fault{call: args[0], times: -1}
		if times, err := strconv.Atoi(args[1]); err == nil {
			f.times, args = times, args[1:]
		}
		f.text = strings.Join(args[1:], " ")
		w.faults = append(w.faults, f)
	}
	return nil
}

// unpin removes a pin of a pod, as somebody else may.
func (w *world) unpin(d *daemon, args []string) error {
	rec, err := d.book.Sandbox(w.id(args[0]))
	if err != nil {
		return err
	}
	for kind, path := range d.places.NamespacePins(rec.Record()) {
		if kind == args[1] {
			delete(w.pins, path)
			return os.Remove(path)
		}
	}
	return fmt.Errorf("no pin %s", args[1])
}

// tear damages the records of a pod, as a power cut may: "current" the last version, "all" the intent, too.
func (w *world) tear(_ *daemon, args []string) error {
	base := filepath.Join(w.dir, "root", "pods", w.id(args[0]), "pod")
	err := os.WriteFile(base+".json", []byte("{"), 0o600)
	if err == nil && args[1] == "all" {
		err = os.WriteFile(base+".intent", nil, 0o600)
	}
	return err
}
