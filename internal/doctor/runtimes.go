package doctor

import (
	"context"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/handler"
)

// daemon asks whether it answers and is ready.
func daemon(ctx context.Context, n *Node) findings {
	var f findings
	said, err := n.Daemon(ctx)
	if err != nil {
		f.add(Error, "Start it: `systemctl enable --now pinfold`. `journalctl -u pinfold` says why it ended.", "the daemon does not answer: %v", err)
		return f
	}
	for _, p := range said.Problems {
		f.add(Error, "The checks below say more.", "the daemon is not ready: %s", p)
	}
	if said.Debts > 0 {
		f.add(Warning, "`pinfold check` names them; `pinfold check --repair` tries again at once.", "%d undos have failed and are retried", said.Debts)
	}
	return f.or("pinfoldd %s answers and is ready", said.Version)
}

func configuration(_ context.Context, n *Node) findings {
	var f findings
	if n.ConfigError != nil {
		f.add(Error, "Mend the file; `pinfoldd config check` reads it again. A running daemon goes on with the old one, but does not start again.", "%v", n.ConfigError)
		return f
	}
	if n.Config.Pinder == "" {
		if _, err := n.probe.lookPath("pinder"); err != nil && !n.exists("/usr/local/bin/pinder") {
			f.add(Error, "Install pinder beside pinfoldd, or name it with the key `pinder`.", "pinder is not in $PATH")
		}
	} else if !n.exists(n.Config.Pinder) {
		f.add(Error, "Install it there, or change the key `pinder`.", "there is no %s", n.Config.Pinder)
	}
	if len(n.Config.Files) == 0 {
		return f.or("no file; all keys have their defaults")
	}
	return f.or("read from %d files, the last is %s", len(n.Config.Files), n.Config.Files[len(n.Config.Files)-1])
}

// runtimes asks each OCI runtime what it can do.
func runtimes(ctx context.Context, n *Node) findings {
	if n.Config == nil {
		return unknown("the configuration cannot be read")
	}
	paths := map[string]handler.Runtime{}
	for name, r := range n.Config.Runtimes {
		paths[name] = handler.Runtime{Path: n.path(r.Path)}
	}
	fallback := n.Config.DefaultRuntime
	if len(paths) == 0 {
		paths, fallback = handler.InPath(n.probe.lookPath, fallback)
	}
	var f findings
	const install = "Install runc 1.2 or later, or crun 1.21 or later, and name it in the table `runtimes` if it is not in $PATH."
	set, err := handler.NewSet(paths, fallback)
	if err != nil {
		f.add(Error, install, "the default runtime %s is not there", fallback)
		return f
	}
	for _, h := range set.All(ctx)[1:] {
		switch {
		case errdefs.IsFailedPrecondition(h.Problem):
			f.add(Error, install, "runtime %s: %v", h.Name, h.Problem)
		case h.Problem != nil:
			f.add(Warning, install, "runtime %s does not say what it can do, so it is old or broken: %v", h.Name, h.Problem)
		case !h.UserNamespaces:
			f.add(Warning, install, "runtime %s (%s) has no user namespaces", h.Name, h.Version)
		}
	}
	return f.or("%d OCI runtimes; pods that name none get %s", len(paths), fallback)
}
