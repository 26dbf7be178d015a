package ocispec

import (
	"slices"
	"strings"
	"testing"
)

// ordersToRuntimes are annotations of an OCI configuration that runc or crun obeys, or from which
// VM-based runtimes read their configuration. Tenants write pods' annotations.
var ordersToRuntimes = []string{
	"run.oci.hooks.stdout", "run.oci.hooks.stderr", "run.oci.handler", "run.oci.delegate-cgroup", "run.oci.systemd.subgroup",
	"run.oci.systemd.force_cgroup_v1", "run.oci.keep_original_groups", "run.oci.mount_context_type", "run.oci.pidfd_receiver",
	"run.oci.seccomp.receiver", "run.oci.seccomp.plugins", "run.oci.seccomp_fail_unknown_syscall", "run.oci.seccomp_bpf_data",
	"run.oci.timens_offset", "module.wasm.image/variant", "org.systemd.property.DevicePolicy", "org.systemd.property.ExecStopPost",
	"org.criu.config", "org.opencontainers.runc.exec.isolated-cpu-affinity-transition", "org.opencontainers.image.stopSignal",
	"io.kubernetes.cri.sandbox-id", "io.kubernetes.cri.container-type", "io.kubernetes.cri.image-name",
	"io.kubernetes.cri-o.Devices", "io.kubernetes.cri-o.userns-mode", "io.katacontainers.config.hypervisor.path", "dev.gvisor.flag.debug",
	"nvidia.cdi.k8s.io/container", "a.tenant/own",
}

func TestNoAnnotationOfATenantReachesTheOCIRuntime(t *testing.T) {
	const evil = "of-a-tenant"
	for _, userns := range []string{`{}`, usernsPod} {
		for _, systemd := range []bool{false, true} {
			c := request(t, userns, `{}`)
			c.Config.Annotations, c.Sandbox.Config.Annotations = map[string]string{}, map[string]string{}
			c.Image.Labels = map[string]string{}
			for _, key := range ordersToRuntimes {
				for _, of := range []map[string]string{c.Config.Annotations, c.Sandbox.Config.Annotations, c.Image.Labels} {
					of[key] = evil
				}
			}
			c.Config.Labels, c.Sandbox.Config.Labels = c.Config.Annotations, c.Config.Annotations
			for key, value := range build(t, Host{SystemdCgroup: systemd}, c).Annotations {
				if strings.Contains(value, evil) || !slices.Contains(ownAnnotations, key) {
					t.Errorf("user namespace %t, systemd %t: the runtime is given %s=%q", userns == usernsPod, systemd, key, value)
				}
			}
		}
	}
}

// ownAnnotations are all that an OCI configuration has.
var ownAnnotations = []string{
	"io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id", "io.kubernetes.cri.sandbox-name",
	"io.kubernetes.cri.sandbox-namespace", "io.kubernetes.cri.sandbox-uid", "io.kubernetes.cri.container-name",
	"io.kubernetes.cri.image-name", "run.oci.systemd.subgroup",
}
