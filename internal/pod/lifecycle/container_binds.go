package lifecycle

import (
	"context"
	"path"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/rootfs"
)

// containerBinds is the step "binds". It comes last, when nothing changes the configuration any more. Its mounts are
// removed with the root file system.
type containerBinds struct {
	places *pod.Places
	mounts bindMounts
}

type bindMounts interface {
	// LockBinds makes locked copies of mounts, and says where.
	LockBinds(id string, binds []rootfs.Bind) ([]string, error)
}

// Do puts locked mounts in the place of all that a container with a user namespace gets bound from the host: volumes,
// the pod's files, what CDI and plugins added. In the node's user namespace there is nothing to lock: CAP_SYS_ADMIN
// there may change any mount.
func (s containerBinds) Do(_ context.Context, box *pod.Sandbox, c *pod.Container) error {
	if box.Record().Mappings() == nil {
		return nil
	}
	config, err := s.places.BundleSpec(c.ID)
	if err != nil {
		return err
	}
	var binds []rootfs.Bind
	var of []*specs.Mount
	for i := range config.Mounts {
		m := &config.Mounts[i]
		if slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind") || m.Type == "bind" {
			binds = append(binds, rootfs.Bind{Source: m.Source, Options: m.Options, Opens: opens(c.Record(), m)})
			of = append(of, m)
		}
	}
	paths, err := s.mounts.LockBinds(c.ID, binds)
	if err != nil {
		return err
	}
	sources := map[string]string{}
	for i, m := range of {
		sources[paths[i]] = m.Source
		m.Type, m.Source, m.Options = "bind", paths[i], slices.DeleteFunc(m.Options, rootfs.LockedFor)
	}
	if err := s.places.WriteBoundSources(c.ID, sources); err != nil {
		return err
	}
	return s.places.WriteBundleSpec(c.ID, config)
}

// opens says which device nodes a mount may bring: as a device that was given, by the node's agents, any. A volume may
// hold nodes that another pod made, so of volumes only the nodes of the node's own /dev count. It is asked of the node
// that is mounted: what lies at a path may be exchanged meanwhile.
func opens(r *pod.ContainerRecord, m *specs.Mount) func(*unix.Stat_t) bool {
	for _, volume := range r.Config.GetMounts() {
		if path.Clean(volume.GetContainerPath()) == path.Clean(m.Destination) {
			return isOfNodesDev
		}
	}
	return func(*unix.Stat_t) bool { return true }
}
