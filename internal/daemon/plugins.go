package daemon

import (
	"context"
	"log/slog"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/cdi"
	"github.com/pinfold-run/pinfold/internal/config"
	"github.com/pinfold-run/pinfold/internal/fault"
	"github.com/pinfold-run/pinfold/internal/nri"
	"github.com/pinfold-run/pinfold/internal/pod"
)

// withFreeNRISocket returns the configuration with another socket for NRI plugins if usual, that of
// the node, is configured and another runtime's, such as containerd's beside this daemon. A node that is moved
// from one runtime to the other has both for a time.
func withFreeNRISocket(c *config.Config, usual string, log *slog.Logger) *config.Config {
	if c.NRISocket != usual {
		return c
	}
	err := vacant(c.NRISocket)
	if err == nil {
		return c
	}
	c = c.Copy()
	c.NRISocket = filepath.Join(c.State, "nri.sock")
	log.Warn("another runtime has the node's socket for NRI plugins; plugins of this one connect to another socket", "socket", c.NRISocket, "reason", err)
	return c
}

// preparePlugins makes the place for NRI plugins. They can connect after recovery.
func (p *parts) preparePlugins(c *config.Config, version string) error {
	if c.NRISocket == "" {
		return nil
	}
	var err error
	p.plugins, err = nri.New(nri.Config{
		Socket:       c.NRISocket,
		Root:         c.Root,
		Version:      version,
		Log:          p.Log,
		Book:         p.Book,
		Bundle:       func(id string) []byte { return p.Places.ShownBundle(id) },
		Namespaces:   p.Places.NamespacePins,
		CgroupParent: func(rec *pod.SandboxRecord) string { return p.Places.Cgroup(rec).Parent },
		Apply: func(ctx context.Context, id string, to *runtimeapi.LinuxContainerResources) error {
			return fault.Guard(func() error { return p.containers.ApplyResources(ctx, id, to) })
		},
		Evict: func(ctx context.Context, id string) error {
			return fault.Guard(func() error { return p.containers.Stop(ctx, id, 0) })
		},
		InjectCDI: func(config *specs.Spec, names []string) error { return cdi.Inject(config, cdi.DefaultDirs(), names) },
	})
	return err
}

// startPlugins lets plugins connect. It can fail: a file in the plugins' directory may have a name
// that NRI does not accept, or the socket cannot be made. The node then serves pods without
// plugins.
func (p *parts) startPlugins() {
	if p.plugins == nil {
		return
	}
	if err := p.plugins.Start(); err != nil {
		p.Log.Error("NRI plugins do not run on this node; correct the configuration and restart the daemon", "error", err)
	}
}
