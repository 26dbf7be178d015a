// Package handler knows the OCI runtimes of this node: the handler name of each (a RuntimeClass names one), its binary,
// and what it can do. It asks the binary ("RUNTIME features", OCI runtime-spec features.md), and compares no versions.
package handler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sync/singleflight"
)

const (
	// probeTimeout limits one run of a runtime's features command.
	probeTimeout = 10 * time.Second
	// retryAfter is the time until a runtime that could not be asked is asked again. If its binary changes, it is asked
	// at once.
	retryAfter = time.Minute
)

// Handler is one OCI runtime and its settings. RunPodSandbox gives its name.
type Handler struct {
	Name string
	// Path is the binary, as configured.
	Path string
	// UserNamespaces and RecursiveReadOnly say what the runtime can do. The kernel is not asked here.
	UserNamespaces    bool
	RecursiveReadOnly bool
	// Seccomp: the runtime can install filters, or could not be asked. In the second case it gets the filter and may
	// fail. Otherwise pods would be refused that it may be able to run.
	Seccomp bool
	// JoinedMappings: the runtime needs the ID mappings of a user namespace that it joins by path. crun does. runc reads
	// them from the namespace, and will refuse them in the configuration one day.
	JoinedMappings bool
	// Kernel: its containers are namespaces of this kernel, as with runc and crun, so that a process can join them.
	Kernel bool
	// Annotations says which annotations the runtime gets, as configured.
	Annotations Annotations
	// Version is what the runtime says. It is only shown.
	Version string
	// Problem is the reason why the runtime could not be asked, nil if it answered. If it is ErrFailedPrecondition, the
	// runtime cannot be run. Otherwise it may still run pods: not every runtime has the command.
	Problem error
}

// MarshalJSON writes the problem as a text.
func (h Handler) MarshalJSON() ([]byte, error) {
	type plain Handler // without this method
	shown := struct {
		plain
		Problem string `json:",omitempty"`
	}{plain: plain(h)}
	if h.Problem != nil {
		shown.Problem = h.Problem.Error()
	}
	return json.Marshal(shown)
}

// Runtime is the configuration of a handler.
type Runtime struct {
	// Path is the binary.
	Path string
	// Annotations says which annotations of pods and containers the runtime gets.
	Annotations Annotations
}

// Annotations are patterns of the keys of annotations, of the pod and of the container.
type Annotations struct{ Pod, Container []string }

// Set is the handlers of a node.
type Set struct {
	choice atomic.Pointer[choice]

	mu     sync.Mutex
	probed map[string]probe
	// asking joins equal questions that come at once. mu is not held during the wait.
	asking singleflight.Group
}

// choice is what is configured. It is never changed; another one takes its place.
type choice struct {
	runtimes map[string]Runtime
	fallback string
}

type probe struct {
	path    string
	handler Handler
	binary  binary
	at      time.Time
}

// binary tells a file from the one that replaces it.
type binary struct {
	modTime time.Time
	size    int64
}

// valid reports whether the answer is still that of the binary.
func (p probe) valid(b binary) bool {
	if p.binary.size != b.size || !p.binary.modTime.Equal(b.modTime) {
		return false
	}
	return p.handler.Problem == nil || !errdefs.IsFailedPrecondition(p.handler.Problem) && time.Since(p.at) < retryAfter
}

// NewSet returns a set of handlers; runtimes are by name. fallback is used if no name is asked for. It fails if fallback is
// not among them.
func NewSet(runtimes map[string]Runtime, fallback string) (*Set, error) {
	s := &Set{probed: map[string]probe{}}
	return s, s.Replace(runtimes, fallback)
}

// Replace makes other handlers the configured ones. If it fails, nothing has changed.
func (s *Set) Replace(runtimes map[string]Runtime, fallback string) error {
	if _, ok := runtimes[fallback]; !ok {
		return fmt.Errorf("handler: the default runtime %q is not one of the configured ones", fallback)
	}
	s.choice.Store(&choice{maps.Clone(runtimes), fallback})
	return nil
}

// Find returns the handler of that name; "" is the default one. The error for an unknown name is ErrNotFound, for a
// missing binary ErrFailedPrecondition.
func (s *Set) Find(ctx context.Context, name string) (Handler, error) {
	now := s.choice.Load()
	if name == "" {
		name = now.fallback
	}
	runtime, ok := now.runtimes[name]
	if !ok {
		return Handler{}, fmt.Errorf("runtime handler %q is not configured: %w", name, errdefs.ErrNotFound)
	}
	h, err := s.At(ctx, name, runtime.Path)
	h.Annotations = runtime.Annotations
	return h, err
}

// At returns the handler of that name with that binary, whatever is configured now: pods were made with it. It gets no
// annotations.
func (s *Set) At(ctx context.Context, name, path string) (Handler, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Handler{}, fmt.Errorf("runtime handler %q: %w: %w", name, err, errdefs.ErrFailedPrecondition)
	}
	file := binary{info.ModTime(), info.Size()}
	s.mu.Lock()
	known, ok := s.probed[name]
	s.mu.Unlock()
	if ok && known.path == path && known.valid(file) {
		return known.handler, nil
	}
	answer := s.asking.DoChan(name+"\x00"+path, func() (any, error) {
		// It does not end with one caller's request: others wait for the same answer.
		h := ask(context.WithoutCancel(ctx), name, path)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.probed[name] = probe{path: path, handler: h, binary: file, at: time.Now()}
		return h, nil
	})
	select {
	case a := <-answer:
		return a.Val.(Handler), nil
	case <-ctx.Done():
		return Handler{}, fmt.Errorf("runtime handler %q: %s features: %w", name, path, ctx.Err())
	}
}

// Path is the binary that is configured for a handler of that name, false if none is.
func (s *Set) Path(name string) (string, bool) {
	runtime, ok := s.choice.Load().runtimes[name]
	return runtime.Path, ok
}

// Has reports whether a handler of that name is configured; "" is the default one.
func (s *Set) Has(name string) bool {
	_, ok := s.choice.Load().runtimes[name]
	return ok || name == ""
}

// All returns all handlers: first the default one with the name "", as CRI has it, then each with its name. Those that
// could not be asked have a Problem.
func (s *Set) All(ctx context.Context) []Handler {
	var all []Handler
	for _, name := range append([]string{""}, slices.Sorted(maps.Keys(s.choice.Load().runtimes))...) {
		h, err := s.Find(ctx, name)
		if err != nil {
			h = Handler{Problem: err}
		}
		h.Name = name
		all = append(all, h)
	}
	return all
}

// Default is the name of the handler that is used if none is asked for.
func (s *Set) Default() string { return s.choice.Load().fallback }

// maxFeatures limits what a runtime may print about itself, in bytes.
const maxFeatures = 1 << 20

// output is command.Output with a limit.
func output(command *exec.Cmd) ([]byte, error) {
	var printed, said bounded
	command.Stdout, command.Stderr = &printed, &said
	err := command.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		exit.Stderr = said.data
	}
	if err == nil && printed.over {
		err = fmt.Errorf("it prints more than %d bytes: %w", maxFeatures, errdefs.ErrFailedPrecondition)
	}
	return printed.data, err
}

// bounded keeps the first maxFeatures bytes that are written to it.
type bounded struct {
	data []byte
	over bool
}

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	n := min(len(p), maxFeatures-len(b.data))
	b.data = append(b.data, p[:n]...)
	b.over = b.over || n < len(p)
	return len(p), nil
}

func ask(ctx context.Context, name, path string) Handler {
	h := Handler{Name: name, Path: path, Seccomp: true}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	command := exec.CommandContext(ctx, path, "features")
	command.Stdin = strings.NewReader("") // a pipe: a runtime gets no file of the node's, which it might change
	command.WaitDelay = time.Second       // children may keep its output open
	out, err := output(command)
	if err != nil {
		h.Problem = fmt.Errorf("%s features: %w%s", path, err, stderr(err))
		if ctx.Err() == nil && !errors.As(err, new(*exec.ExitError)) {
			h.Problem = fmt.Errorf("%w: %w", h.Problem, errdefs.ErrFailedPrecondition)
		}
		return h
	}
	var f features.Features
	if err := json.Unmarshal(out, &f); err != nil {
		h.Problem = fmt.Errorf("%s features: %w", path, err)
		return h
	}
	h.Seccomp = false
	h.RecursiveReadOnly = slices.Contains(f.MountOptions, "rro")
	if f.Linux != nil {
		h.UserNamespaces = slices.Contains(f.Linux.Namespaces, "user")
		h.Seccomp = f.Linux.Seccomp != nil && f.Linux.Seccomp.Enabled != nil && *f.Linux.Seccomp.Enabled
	}
	_, h.JoinedMappings = f.Annotations["run.oci.crun.version"]
	_, runc := f.Annotations["org.opencontainers.runc.version"]
	h.Kernel = runc || h.JoinedMappings
	for key, value := range f.Annotations {
		if strings.HasSuffix(key, ".version") && !strings.Contains(key, "libseccomp") {
			h.Version = value
		}
	}
	return h
}

func stderr(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return ": " + strings.TrimSpace(string(exit.Stderr[:min(len(exit.Stderr), 512)]))
	}
	return ""
}

// InPath returns the OCI runtimes that lookPath finds, for a node without a table of them, and the one for pods
// that name none: wanted, or crun if that is the only one and runc is wanted, which is what the configuration
// says by default.
func InPath(lookPath func(string) (string, error), wanted string) (runtimes map[string]Runtime, fallback string) {
	runtimes = map[string]Runtime{}
	for _, name := range []string{"runc", "crun"} {
		if path, err := lookPath(name); err == nil {
			runtimes[name] = Runtime{Path: path}
		}
	}
	_, runc := runtimes["runc"]
	_, crun := runtimes["crun"]
	if wanted == "runc" && !runc && crun {
		return runtimes, "crun"
	}
	return runtimes, wanted
}

// Resolve returns path, or, if that is empty, the binary of that name in PATH.
func Resolve(name, path string) (string, error) {
	if path != "" {
		return path, nil
	}
	found, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("OCI runtime %q: %w", name, fs.ErrNotExist)
	}
	return found, nil
}
