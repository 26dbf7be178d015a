package lifecycle

import (
	"context"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pod"
)

// specContainer is the container as package spec wants to see it. The root file system is mounted.
func (s *Containers) specContainer(box *pod.Sandbox, c *pod.Container) (ocispec.Container, error) {
	rec := c.Record()
	img, err := s.node.Images.Find(rec.Image)
	if err != nil {
		return ocispec.Container{}, err
	}
	root := s.node.Mounts.RootPath(c.ID)
	sc := ocispec.Container{
		ID:      c.ID,
		Sandbox: s.node.ForSpec(box.Record()),
		Config:  rec.Config.ContainerConfig,
		Image:   img.Config.Config,
		Rootfs:  root,
		Volumes: rec.Volumes,
	}
	for _, m := range rec.Mounts {
		sc.MountSources = append(sc.MountSources, m.Source)
	}
	sc.Passwd, sc.PasswdErr = s.userDatabase(c, "etc/passwd")
	sc.Group, sc.GroupErr = s.userDatabase(c, "etc/group")
	if sc.SeccompProfile, err = readSeccompProfile(rec.Config.ContainerConfig); err != nil {
		return ocispec.Container{}, err
	}
	if sc.Devices, err = hostDevices(sc); err != nil {
		return ocispec.Container{}, err
	}
	target, err := s.pidTarget(rec)
	sc.TargetPID = pidNamespace(target)
	return sc, err
}

func (s *Containers) buildSpec(box *pod.Sandbox, c *pod.Container) (*specs.Spec, error) {
	sc, err := s.specContainer(box, c)
	if err != nil {
		return nil, err
	}
	host, err := hostFor(s.node, box.Record())
	if err != nil {
		return nil, err
	}
	built, err := ocispec.Build(host, sc)
	if err != nil {
		return nil, err
	}
	if err := confine(s.node, c.Record(), built); err != nil {
		return nil, err
	}
	user := built.Process.User
	err = s.node.ChangeContainer(c, func(r *pod.ContainerRecord) {
		r.User = &pod.User{UID: user.UID, GID: user.GID, Groups: user.AdditionalGids}
	})
	return built, err
}

// hostFor is the node as the sandbox's runtime handler can use it.
func hostFor(n *pod.Node, rec *pod.SandboxRecord) (ocispec.Host, error) {
	runtime, err := n.RuntimeOf(context.Background(), rec)
	if err != nil {
		return ocispec.Host{}, err
	}
	h := n.Host
	h.SystemdCgroup = n.SystemdCgroup(rec)
	h.Seccomp = h.Seccomp && runtime.Seccomp
	h.Features.RecursiveReadOnly = h.Features.RecursiveReadOnly && runtime.RecursiveReadOnly
	h.Features.JoinedMappings = runtime.JoinedMappings
	return h, nil
}

// maxUserDatabase bounds /etc/passwd and /etc/group of an image, in bytes.
const maxUserDatabase = 4 << 20

// userDatabase reads a file of an image that only users and groups by name need: without it a container with numbers
// goes. A missing one is nil.
func (s *Containers) userDatabase(c *pod.Container, name string) ([]byte, error) {
	data, err := s.node.Mounts.ReadFile(c.ID, name, maxUserDatabase)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		s.node.Log.Warn("a file of the image cannot be read; users and groups can only be given by number", "container", c.ID, "error", err)
	}
	return data, err
}
