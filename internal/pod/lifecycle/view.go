package lifecycle

import (
	"path/filepath"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/pin"
)

// view shows a sandbox as package ocispec takes it.
type view struct {
	places *pod.Places
	mounts interface{ ShmPath(id string) string }
}

// files are the host paths of what a sandbox lends to its containers.
func (v view) files(rec *pod.SandboxRecord) ocispec.Files {
	dir := v.places.Files(rec.ID)
	f := ocispec.Files{
		Hostname:   filepath.Join(dir, "hostname"),
		Hosts:      filepath.Join(dir, "hosts"),
		ResolvConf: filepath.Join(dir, "resolv.conf"),
		Shm:        v.mounts.ShmPath(rec.ID),
	}
	if rec.NamespaceOptions().GetIpc() == runtimeapi.NamespaceMode_NODE {
		f.Shm = "/dev/shm"
	}
	return f
}

func (v view) sandbox(rec *pod.SandboxRecord) ocispec.Sandbox {
	path := func(kind pin.Kind) string {
		if rec.Kinds()&kind == 0 {
			return ""
		}
		return v.places.PinPath(rec, kind)
	}
	s := ocispec.Sandbox{
		ID:     rec.ID,
		Config: rec.Config,
		Namespaces: ocispec.NamespacePaths{
			User: path(pin.User), Net: path(pin.Net), IPC: path(pin.IPC), UTS: path(pin.UTS),
		},
		Files:        v.files(rec),
		Hostname:     rec.Hostname(),
		Cgroup:       v.places.Cgroup(rec),
		SELinuxLevel: rec.SELinuxLevel,
	}
	if rec.Init.PID != 0 {
		s.Namespaces.PID = v.places.Pin(rec.ID, pin.PID)
	}
	return s
}
