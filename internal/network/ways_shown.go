package network

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/libcni"

	"github.com/pinfold-run/pinfold/internal/network/builtin"
)

// PluginWay says how a plugin of the network is called, for operators.
type PluginWay struct {
	Plugin string `json:"plugin"`
	// Way is one of: in process, started, started unless it has nothing to do.
	Way string `json:"way"`
	// Reason is why it is started.
	Reason string `json:"reason,omitempty"`
}

// Plugins says for each plugin of the network that is configured now how it is called. It is empty if none can be read.
func (n *Network) Plugins(ctx context.Context) []PluginWay {
	conf, err := load(n.confDir())
	if err != nil {
		return []PluginWay{}
	}
	r := &runner{net: n, group: "net-about-" + n.instance()}
	ways := []PluginWay{}
	for _, p := range conf.list.Plugins {
		ways = append(ways, n.ways.of(ctx, r, p, n.binDirs()))
	}
	n.groups.remove(r.group)
	return ways
}

// of says how a plugin of a list is called.
func (w *ways) of(ctx context.Context, r *runner, p *libcni.PluginConfig, dirs []string) PluginWay {
	shown := PluginWay{Plugin: p.Network.Type, Way: "in process"}
	path, err := findPlugin(shown.Plugin, dirs)
	if err != nil {
		return PluginWay{Plugin: shown.Plugin, Way: "started", Reason: err.Error()}
	}
	// A DEL without capability arguments is what has the least to do.
	c := builtin.Call{Command: "DEL", Config: p.Bytes, Path: strings.Join(dirs, string(filepath.ListSeparator))}
	chosen := w.choose(ctx, r, path, &c)
	if chosen.way == passed {
		published, _ := w.references.of(ctx, shown.Plugin, path, r.about) // choose has asked for it
		chosen.why = w.carriesOut(ctx, r, shown.Plugin, published, &c)
	}
	switch {
	case chosen.why != nil && chosen.way == passed:
		shown.Way, shown.Reason = "started unless it has nothing to do", chosen.why.Error()
	case chosen.why != nil:
		shown.Way, shown.Reason = "started", chosen.why.Error()
	}
	return shown
}
