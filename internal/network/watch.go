package network

import (
	"context"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pinfold-run/pinfold/internal/steps"
)

// watched is run, one call of the plugin at that path, seen by Config.Calls.
func (r *runner) watched(ctx context.Context, path string, environ []string, run func(context.Context) ([]byte, error)) ([]byte, error) {
	if r.net.cfg.Calls == nil {
		return run(ctx)
	}
	command, names := arguments(environ)
	ctx, ended := r.net.cfg.Calls.Call(ctx, steps.Call{Kind: steps.CNI, Program: filepath.Base(path), Command: command, Arguments: names})
	out, err := run(ctx)
	ended(err)
	return out, err
}

// verbs are the commands of CNI. A plugin is called with no other one.
var verbs = []string{"ADD", "CHECK", "DEL", "GC", "STATUS", "VERSION"}

// arguments are the command and the names of the arguments of a plugin: of CNI's variables, and of what is in CNI_ARGS.
func arguments(environ []string) (command string, names []string) {
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, "CNI_") {
			continue
		}
		if name == "CNI_COMMAND" && slices.Contains(verbs, value) {
			command = value
		}
		if name != "CNI_ARGS" {
			names = append(names, name)
			continue
		}
		for pair := range strings.SplitSeq(value, ";") {
			if key, _, ok := strings.Cut(pair, "="); ok {
				names = append(names, name+"."+key)
			}
		}
	}
	slices.Sort(names)
	return command, slices.Compact(names)
}
