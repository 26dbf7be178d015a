package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"

	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/ocispec"
)

// config is the request for the pod, without its log directory.
func (o *podOptions) config(users *runtimeapi.UserNamespace) *runtimeapi.PodSandboxConfig {
	options := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER, UsernsOptions: users}
	if o.hostNetwork {
		options.Network = runtimeapi.NamespaceMode_NODE
	}
	config := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: o.name, Namespace: podNamespace, Uid: rand.Text()},
		Labels:       o.allLabels(),
		PortMappings: o.ports.list,
		Linux:        &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: options}},
	}
	if !o.hostNetwork {
		config.Hostname = o.name
	}
	return config
}

func (o *podOptions) allLabels() map[string]string {
	labels := map[string]string{ownLabel: ownLabelValue}
	for _, l := range o.labels.list {
		labels[l.key] = l.value
	}
	return labels
}

func (o *podOptions) makeLogDir() (string, error) {
	if o.logDir == "" {
		return os.MkdirTemp("", "pinfold-"+o.name+"-")
	}
	dir, err := filepath.Abs(filepath.Join(o.logDir, o.name))
	if err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o700)
}

// withoutUserNS tells the operator what to do if the pod cannot have a user namespace.
const withoutUserNS = "--host-users runs the pod without a user namespace"

// explain adds the likely reason: some nodes cannot give a user namespace to a pod on the node's
// network.
func (o *podOptions) explain(err error) error {
	if o.hostUsers || !o.hostNetwork {
		return err
	}
	return fmt.Errorf("%s (with --host-network; %s)", status.Convert(err).Message(), withoutUserNS)
}

// chooseUserNS chooses the ids of the pod's user namespace. If there are none, it fails: the
// pod never runs without a user namespace.
func (o *podOptions) chooseUserNS(ctx context.Context, n *node) (*runtimeapi.UserNamespace, error) {
	if o.hostUsers {
		return nil, nil
	}
	s, err := n.runtime.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return nil, err
	}
	for _, h := range s.RuntimeHandlers {
		if h.Name == o.handler && !h.GetFeatures().GetUserNamespaces() {
			return nil, fmt.Errorf("run: this node or its OCI runtime cannot give a pod a user namespace (pinfold status says what is missing); %s", withoutUserNS)
		}
	}
	taken, err := n.takenRanges(ctx)
	if err != nil {
		return nil, err
	}
	ids, err := chooseRange(o.usernsRange, taken)
	if err != nil {
		return nil, fmt.Errorf("run: %w; %s", err, withoutUserNS)
	}
	return ids, nil
}

// config is the request for the container.
func (o *containerOptions) config(sandbox *runtimeapi.PodSandboxConfig) (*runtimeapi.ContainerConfig, error) {
	var envs []*runtimeapi.KeyValue
	for _, file := range o.envFiles {
		list, err := readEnvFile(file)
		if err != nil {
			return nil, fmt.Errorf("run: --env-file: %w", err)
		}
		envs = append(envs, list...)
	}
	for _, variable := range o.env.list {
		if variable != nil {
			envs = append(envs, variable)
		}
	}
	config := &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: sandbox.GetMetadata().GetName()},
		Image:    &runtimeapi.ImageSpec{Image: o.image},
		Args:     o.command, WorkingDir: o.workDir, Envs: envs,
		Mounts: o.mounts(sandbox), Labels: sandbox.GetLabels(), LogPath: containerLog,
		Stdin: o.stdin, StdinOnce: o.stdin, Tty: o.tty,
		Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: o.confined(sandbox), Resources: o.resources()},
	}
	switch {
	case o.entrypoint.program != "":
		config.Command = []string{o.entrypoint.program}
	case o.entrypoint.given: // CRI cannot take an entrypoint away; a command stands in its place
		config.Command, config.Args = o.command, nil
	}
	return config, nil
}

// mounts are the volumes. In a pod with a user namespace, its root has the rights of the node's root
// in them, as in volumes of Kubernetes.
func (o *containerOptions) mounts(sandbox *runtimeapi.PodSandboxConfig) []*runtimeapi.Mount {
	users := sandbox.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions()
	for _, m := range o.volumes.list {
		m.UidMappings, m.GidMappings = users.GetUids(), users.GetGids()
	}
	return o.volumes.list
}

func (o *containerOptions) resources() *runtimeapi.LinuxContainerResources {
	if o.memory == 0 && o.cpus == 0 {
		return nil
	}
	r := &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: int64(o.memory)}
	if o.cpus > 0 {
		r.CpuPeriod, r.CpuQuota = cpuPeriod, o.cpus.quota()
	}
	return r
}

// confined is the security context of the container. CRI does not restrict what a request leaves
// out, so this names every restriction. (AppArmor is the exception: a node that has a default
// profile applies it.)
func (o *containerOptions) confined(sandbox *runtimeapi.PodSandboxConfig) *runtimeapi.LinuxContainerSecurityContext {
	return &runtimeapi.LinuxContainerSecurityContext{
		NamespaceOptions: sandbox.GetLinux().GetSecurityContext().GetNamespaceOptions(),
		Seccomp:          &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
		MaskedPaths:      ocispec.DefaultMaskedPaths(),
		ReadonlyPaths:    ocispec.DefaultReadonlyPaths(),
		RunAsUser:        o.user.uid, RunAsUsername: o.user.name, RunAsGroup: o.user.group,
	}
}
