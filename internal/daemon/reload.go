package daemon

import (
	"context"
	"strings"

	"github.com/pinfold-run/pinfold/internal/config"
	"github.com/pinfold-run/pinfold/internal/image/registry"
)

// reloader reads the configuration again while the daemon serves.
type reloader struct {
	*parts
	// running is what counts now.
	running *config.Config
	process Process
}

// run reloads each time that it is asked to. What was asked for before the daemon served is done at
// its beginning.
func (r *reloader) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.process.Reload:
		}
		r.process.tell(r.process.Manager.Reloading())
		status := r.status()
		if err := r.reload(ctx); err != nil {
			r.Log.Error("the configuration is not usable; the one from before stays in force", "error", err)
			status += "; the configuration was not reloaded: " + err.Error()
		}
		r.process.tell(r.process.Manager.Ready(status))
	}
}

// reload takes what has changed. If it fails, nothing has changed.
func (r *reloader) reload(ctx context.Context) error {
	next, err := r.process.Load()
	if err != nil {
		return err
	}
	// Without a table, the runtimes are those in $PATH, which may have others now.
	if err := r.node.handlers.Replace(configuredRuntimes(next.Config)); err != nil {
		return err
	}
	go r.logRuntimes(ctx)
	taken, pending := r.running.Take(next)
	r.process.SetLog(r.running)
	r.node.network.SetDirs(r.running.CNIConfDir, strings.Split(r.running.CNIBinDir, ":"))
	r.node.images.SetRegistryConfigDir(r.running.RegistryConfigDir)
	r.node.images.SetPinnedNames(r.running.PinnedImages)
	r.checkRegistries(r.running)
	for _, c := range taken {
		r.Log.Info("the configuration has changed", "key", c.Key, "old", c.Old, "new", c.New, "from", c.From)
	}
	for _, c := range pending {
		r.Log.Warn("a change of the configuration needs a restart of the daemon", "key", c.Key, "running", c.Old, "configured", c.New, "from", c.From)
	}
	r.Log.Info("the configuration was read again", "files", strings.Join(next.Files, ","), "changed", len(taken), "need_restart", len(pending))
	return nil
}

// checkRegistries warns about directories that are missing.
func (p *parts) checkRegistries(c *config.Config) {
	err := registry.CheckConfigDirs(c.RegistryConfigDir)
	if err != nil && c.RegistryConfigDir != config.DefaultRegistryConfigDir {
		p.Log.Warn("a directory of registry configuration is missing: images are pulled from the registries themselves", "reason", err)
	}
}
