package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/pinfold-run/pinfold/internal/network/builtin"
	"github.com/pinfold-run/pinfold/internal/steps"
)

// way is how one call of a plugin is carried out. The result is the same.
type way int

const (
	// started: the plugin's program is started.
	started way = iota
	// within: the daemon does the same itself, see package builtin.
	within
	// passed: the plugin would do nothing with this configuration, and so does the daemon.
	passed
)

// choice is the way of a call.
type choice struct {
	way    way
	why    error  // the reason, if way is started
	answer []byte // what the plugin would print, if way is passed
}

// ways chooses how plugins are called.
type ways struct {
	startAll   bool
	references references
	builtin    *builtin.Plugins
	node       node
}

// node remembers what the probe of the node has said.
type node struct {
	mu    sync.Mutex
	asked time.Time
	err   error
}

// probeAgain is how long an answer counts that was none.
const probeAgain = time.Minute

// able returns nil if the node can do what package builtin does. It asks the kernel once, and again only if it could not tell.
func (n *node) able() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.asked.IsZero() && (!errors.Is(n.err, builtin.ErrUnknown) || time.Since(n.asked) < probeAgain) {
		return n.err
	}
	n.err = builtin.Probe()
	n.asked = time.Now()
	return n.err
}

// request is a call of a plugin by libcni, from standard input and environment. The last of several values counts, as it
// does for a program that Go starts.
func request(stdin []byte, environ []string) builtin.Call {
	c := builtin.Call{Config: stdin}
	for name, to := range map[string]*string{
		"CNI_COMMAND": &c.Command, "CNI_CONTAINERID": &c.ContainerID, "CNI_NETNS": &c.NetNS,
		"CNI_IFNAME": &c.IfName, "CNI_ARGS": &c.Args, "CNI_PATH": &c.Path,
	} {
		for _, variable := range environ {
			if value, ok := strings.CutPrefix(variable, name+"="); ok {
				*to = value
			}
		}
	}
	return c
}

// choose chooses the way of a call. Only a file that is the CNI project's own plugin has another than started.
func (w *ways) choose(ctx context.Context, r *runner, path string, c *builtin.Call) choice {
	if w.startAll {
		return choice{why: errors.New("cni_in_process is off")}
	}
	plugin := filepath.Base(path)
	published, err := w.references.of(ctx, plugin, path, r.about)
	if err != nil {
		return choice{why: err}
	}
	if answer, ok := passes(plugin, published, c); ok {
		return choice{way: passed, answer: answer}
	}
	if err := w.carriesOut(ctx, r, plugin, published, c); err != nil {
		return choice{why: err}
	}
	return choice{way: within}
}

// carriesOut says why package builtin cannot do what the plugin would do.
func (w *ways) carriesOut(ctx context.Context, r *runner, plugin string, published release, c *builtin.Call) error {
	if !sameAsBuiltin(plugin, published) {
		return fmt.Errorf("it is %s, and another release may do something else", published)
	}
	if err := w.node.able(); err != nil {
		return fmt.Errorf("the node: %w", err)
	}
	others, err := w.builtin.Knows(plugin, c.Config)
	if err != nil {
		return err
	}
	for _, other := range others {
		path, err := findPlugin(other, filepath.SplitList(c.Path))
		if err != nil {
			return err
		}
		published, err := w.references.of(ctx, other, path, r.about)
		if err != nil {
			return fmt.Errorf("%s: %w", other, err)
		}
		if !sameAsBuiltin(other, published) {
			return fmt.Errorf("%s is %s, and another release may do something else", other, published)
		}
	}
	return nil
}

// sameAsBuiltin: package builtin does what this release does. It was compared with their sources.
func sameAsBuiltin(plugin string, r release) bool {
	if plugin == "flannel" {
		return r.major == 1 && r.minor >= 3 && r.minor <= 9
	}
	return r.major == 1 && r.minor == 9
}

// passesSince and passesUntil are the first and the last release whose portmap and bandwidth are known to do nothing where
// passes says so.
const passesSince, passesUntil = 0, 10

// passes reports whether the plugin would do nothing but print the result of those before it, and returns that.
func passes(plugin string, r release, c *builtin.Call) ([]byte, bool) {
	if r.major != 1 || r.minor < passesSince || r.minor > passesUntil {
		return nil, false
	}
	idle := map[string]func([]byte) bool{"portmap": builtin.MapsNoPort, "bandwidth": builtin.LimitsNothing}[plugin]
	if idle == nil || !idle(c.Config) {
		return nil, false
	}
	if c.Command == "DEL" {
		return nil, true
	}
	var conf struct {
		PrevResult json.RawMessage `json:"prevResult"`
	}
	if c.Command != "ADD" || json.Unmarshal(c.Config, &conf) != nil || checkResult(conf.PrevResult) != nil {
		return nil, false
	}
	return conf.PrevResult, true
}

// within carries out a call in this process. Its errors are those of a program that failed in the same way.
func (r *runner) within(ctx context.Context, path string, c builtin.Call) ([]byte, error) {
	plugin := filepath.Base(path)
	r.last = outcome{plugin: plugin}
	if ctx.Err() != nil {
		return nil, &pluginError{plugin: plugin, text: "was not called: " + ctx.Err().Error(), class: ctx.Err()}
	}
	began := time.Now()
	c.Start = func(ctx context.Context, name string, args []string, stdin []byte) ([]byte, error) {
		tool := &runner{net: r.net, group: r.group} // several may run at a time
		return tool.once(ctx, program{path: name, args: args, environ: os.Environ(), stdin: stdin})
	}
	c.Reach = func(change string) error { return steps.Point(plugin+"-"+c.Command, change) }
	out, err := r.net.ways.builtin.Run(ctx, plugin, c)
	var said *types.Error
	switch {
	case err == nil && r.checkResult:
		if err := checkResult(out); err != nil {
			return nil, &pluginError{plugin: plugin, text: "has a result that cannot be used: " + err.Error(), class: errdefs.ErrUnavailable}
		}
		return out, nil
	case err == nil || errors.Is(err, builtin.ErrStart):
		return out, err
	case ctx.Err() != nil:
		return nil, interrupted(ctx, plugin, began, nil)
	case errors.As(err, &said):
		return nil, saidError(plugin, said)
	default:
		return nil, &pluginError{plugin: plugin, text: "failed: " + err.Error(), class: errdefs.ErrUnavailable}
	}
}

// about starts a plugin without a command. It then prints what it is to its error output.
func (r *runner) about(ctx context.Context, path string) (string, error) {
	const longest = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	asked := &runner{net: r.net, group: r.group}
	_, err := asked.once(ctx, program{path: path, environ: []string{"PATH=" + os.Getenv("PATH")}})
	return string(asked.last.stderr.data), err
}
