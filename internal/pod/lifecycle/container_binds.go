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

// Do makes a locked mount for each bind mount from the host that a container with a user namespace gets: volumes, the pod's
// files, what CDI and plugins added. A container in the node's user namespace gets none: with CAP_SYS_ADMIN it could change
// them all the same.
func (s containerBinds) Do(_ context.Context, box *pod.Sandbox, c *pod.Container) error {
	if box.Record().Mappings() == nil {
		return nil
	}
	config := c.Draft
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
		m.Type, m.Source, m.Options = "bind", paths[i], slices.DeleteFunc(slices.Clone(m.Options), rootfs.LockedFor)
	}
	return s.places.WriteBoundSources(c.ID, sources)
}

// opens says which device nodes of a mount the container may open. If the mount is a device that the node's agents have
// given, it is any. In a volume another pod may have made device nodes, so of a volume it is only those of the node's own
// /dev. The function gets the node that is mounted: the one at a path may be replaced meanwhile.
func opens(r *pod.ContainerRecord, m *specs.Mount) func(*unix.Stat_t) bool {
	for _, volume := range r.Config.GetMounts() {
		if path.Clean(volume.GetContainerPath()) == path.Clean(m.Destination) {
			return isOfNodesDev
		}
	}
	return func(*unix.Stat_t) bool { return true }
}
