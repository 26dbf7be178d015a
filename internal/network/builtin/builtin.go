// Package builtin does in this process what plugins of the CNI project do: the same changes of the kernel, the same files,
// the same result. So a plugin can remove what this package made, and the other way round.
//
// A plugin is known here with the configuration that it gets, or not at all: [Plugins.Knows] refuses a configuration with a
// key or a value that the code here does not read. Then the program is started. What only shows itself during a call (a
// tool of the node is missing, for example) is [ErrStart]: nothing has been changed, and the program is started.
//
// # Namespaces
//
// Code for a pod's network namespace runs on a thread of its own, which ends with it. No thread returns to others from
// another namespace. See [Inside].
//
// # Locks
//
// Locks are channels, so that the wait for one ends with the context. A bridge has one, and a store of addresses. No call
// has both at a time.
package builtin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/pinfold-run/pinfold/internal/fault"
)

// ErrStart is the error of a call that has changed nothing, and that the plugin's program is to be started for.
var ErrStart = errors.New("the plugin's program has to be started")

// startInstead is an ErrStart with a reason, which the log and the status show.
func startInstead(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrStart, fmt.Sprintf(format, args...))
}

// Starter starts a program of the node (iptables-restore, for example), and returns what it printed. The program runs as
// CNI plugins run: it is killed at the end of ctx, with its children. What it prints is bounded. Several may run at a time.
type Starter func(ctx context.Context, program string, args []string, stdin []byte) ([]byte, error)

// Call is one call of a plugin: what the program would get in its environment and as standard input.
type Call struct {
	// Command is ADD, DEL, CHECK, GC or STATUS.
	Command string
	// ContainerID, NetNS, IfName, Args and Path are those of CNI's variables.
	ContainerID, NetNS, IfName, Args, Path string
	// Config is what the program would read.
	Config []byte
	// Start starts programs that the call needs.
	Start Starter
	// Reach is called after each change, with the change's name: tests stop or end the daemon there. Nil is not called. A
	// call that has it fail fails.
	Reach func(change string) error
}

// reach is a place between two changes of the kernel or of files.
func (c *Call) reach(change string) error {
	if c.Reach == nil {
		return nil
	}
	return c.Reach(change)
}

// plugin is one plugin. Each verb gets a call that was checked as the plugins' own frame (package skel of CNI) checks it.
// A verb that is nil does nothing, and is no error; only for CHECK the program is started.
type plugin struct {
	// knows says what it cannot do with a configuration, and which other plugins it would call.
	knows func(config []byte) (calls []string, err error)
	add   func(ctx context.Context, c *Call) (types.Result, error)
	del   func(ctx context.Context, c *Call) error
	check func(ctx context.Context, c *Call) error
	gc    func(ctx context.Context, c *Call) error
}

// Plugins are all plugins of this package, with what they share. Make them with [New]. All goroutines may call all methods.
type Plugins struct {
	log     *slog.Logger
	plugins map[string]plugin
	bridges locks // by the name of the bridge
	stores  locks // by the directory of the addresses
}

// New makes the plugins. Nil for log discards what no caller gets as an error.
func New(log *slog.Logger) *Plugins {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	p := &Plugins{log: log}
	p.plugins = map[string]plugin{
		"bridge":   p.bridge(),
		"flannel":  p.flannel(),
		"loopback": p.loopback(),
		"ptp":      p.ptp(),
	}
	return p
}

// Knows returns nil if plugin can be carried out here with that configuration, which is what the program would read, and
// the names of the other plugins that it would call (IPAM). The error is a short reason.
func (p *Plugins) Knows(plugin string, config []byte) (calls []string, err error) {
	known, ok := p.plugins[plugin]
	if !ok {
		return nil, errors.New("it is none of those that can be carried out in process")
	}
	err = fault.Guard(func() error {
		calls, err = known.knows(config)
		return err
	})
	return calls, err
}

// Run carries out one call. What it returns is what the program would print. Errors are *types.Error, as a program would
// print them, or wrap the error of ctx, or are ErrStart.
func (p *Plugins) Run(ctx context.Context, plugin string, c Call) ([]byte, error) {
	known, ok := p.plugins[plugin]
	if !ok {
		return nil, startInstead("%s is not known here", plugin)
	}
	var out []byte
	err := fault.Guard(func() (err error) {
		out, err = known.run(ctx, &c)
		return err
	})
	if stack := fault.Stack(err); stack != "" {
		p.log.Error("a fault in the daemon", "object", plugin, "error", err, "stack", stack)
	}
	var said *types.Error
	switch {
	case err == nil:
		return out, nil
	case errors.Is(err, ErrStart) || ctx.Err() != nil && errors.Is(err, ctx.Err()) || errors.As(err, &said):
		return nil, err
	default:
		return nil, types.NewError(types.ErrInternal, err.Error(), "")
	}
}

func (k *plugin) run(ctx context.Context, c *Call) ([]byte, error) {
	conf, err := c.check()
	if err != nil {
		return nil, err
	}
	switch c.Command {
	case "ADD":
		result, err := k.add(ctx, c)
		if err == nil {
			err = c.reach("end")
		}
		if err != nil {
			return nil, err
		}
		return encode(result, conf.CNIVersion)
	case "DEL":
		return nil, optional(ctx, c, k.del)
	case "CHECK":
		if k.check == nil {
			return nil, startInstead("the daemon does not ask for CHECK")
		}
		return nil, k.check(ctx, c)
	case "GC":
		return nil, optional(ctx, c, k.gc)
	case "STATUS":
		return nil, nil // none of the plugins here has anything to say
	default:
		return nil, startInstead("command %q", c.Command)
	}
}

func optional(ctx context.Context, c *Call, verb func(context.Context, *Call) error) error {
	if verb == nil {
		return nil
	}
	if err := verb(ctx, c); err != nil {
		return err
	}
	return c.reach("end")
}

// head is what all configurations have.
type head struct {
	CNIVersion string `json:"cniVersion"`
	Name       string `json:"name"`
}

// check does what the plugins' frame does before each verb. Where the answer would be an error, the program is started: it
// knows best what to say.
func (c *Call) check() (head, error) {
	var conf head
	if err := decode(c.Config, &conf); err != nil {
		return conf, startInstead("%v", err)
	}
	if conf.CNIVersion == "" {
		conf.CNIVersion = "0.1.0"
	}
	if conf.Name == "" {
		return conf, startInstead("the configuration has no name")
	}
	if !slices.Contains(version.All.SupportedVersions(), conf.CNIVersion) {
		return conf, startInstead("version %q of the specification is not known here", conf.CNIVersion)
	}
	return conf, nil
}

// encode is a result in the configuration's version, as a program would print it.
func encode(result types.Result, version string) ([]byte, error) {
	converted, err := result.GetAsVersion(version)
	if err != nil {
		return nil, err
	}
	return json.Marshal(converted)
}

// previous is the result of the plugins before in the chain, nil if there is none.
func (c *Call) previous() (*current.Result, error) {
	var conf types.PluginConf
	if err := decode(c.Config, &conf); err != nil {
		return nil, err
	}
	if conf.RawPrevResult == nil {
		return nil, nil
	}
	if err := version.ParsePrevResult(&conf); err != nil {
		return nil, fmt.Errorf("the result of the plugins before: %w", err)
	}
	result, err := current.NewResultFromResult(conf.PrevResult)
	if err != nil {
		return nil, fmt.Errorf("the result of the plugins before: %w", err)
	}
	return result, nil
}
