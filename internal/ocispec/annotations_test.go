package ocispec

import (
	"slices"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
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
	"io.kubernetes.cri.image-name", "run.oci.systemd.subgroup", "io.kubernetes.cri.sandbox-log-directory",
}

func TestAnnotationsPassByPatternAsWithContainerd(t *testing.T) {
	pod := map[string]string{
		"t.f": "pod", "z.g": "pod", "z": "pod", "y.ca": "pod", "vendor.example/end": "pod", "vendor.example/other": "pod", "both": "pod",
		"io.kubernetes.cri.sandbox-id": "pod", "io.kubernetes.cri.image-type": "pod", "run.oci.systemd.subgroup": "pod",
	}
	container := map[string]string{"t.f": "container", "own/key": "container", "both": "container", "io.kubernetes.cri.container-type": "sandbox"}
	for name, test := range map[string]struct {
		patterns PassedAnnotations
		want     string // of the container, then of PID 1
	}{
		"nothing":             {PassedAnnotations{}, "|"},
		"a key":               {PassedAnnotations{Pod: []string{"z"}}, "z=pod|z=pod"},
		"stars":               {PassedAnnotations{Pod: []string{"*.f", "z*g", "y.c*"}}, "t.f=pod y.ca=pod z.g=pod|t.f=pod y.ca=pod z.g=pod"},
		"no star for a slash": {PassedAnnotations{Pod: []string{"vendor*"}}, "|"},
		"behind the slash":    {PassedAnnotations{Pod: []string{"vendor.example/e*"}}, "vendor.example/end=pod|vendor.example/end=pod"},
		"of the container":    {PassedAnnotations{Container: []string{"*/*", "t.f"}}, "own/key=container t.f=container|"},
		"the container wins":  {PassedAnnotations{Pod: []string{"both"}, Container: []string{"both"}}, "both=container|both=pod"},
		"never ours":          {PassedAnnotations{Pod: []string{"io.*", "run.oci.*"}, Container: []string{"io.*"}}, "|"},
	} {
		c := request(t, `{}`, `{}`)
		c.Config.Annotations, c.Sandbox.Config.Annotations = container, pod
		h := Host{SystemdCgroup: true, Features: Features{Annotations: test.patterns}}
		got := foreign(build(t, h, c).Annotations) + "|" + foreign(Init(h, c.Sandbox, InitFiles{}).Annotations)
		if got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

// foreign are the annotations that are not Pinfold's own, and those of its own that have a tenant's value.
func foreign(all map[string]string) string {
	var list []string
	for key, value := range all {
		if !slices.Contains(ownAnnotations, key) || value == "pod" || key == "io.kubernetes.cri.image-type" {
			list = append(list, key+"="+value)
		}
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

func TestThePID1OfAPodSaysItsSizeAndLogDirectory(t *testing.T) {
	c := request(t, `{}`, `{}`)
	c.Sandbox.Config.LogDirectory = "/var/log/pods/p"
	c.Sandbox.Config.Linux = &runtimeapi.LinuxPodSandboxConfig{Resources: &runtimeapi.LinuxContainerResources{
		CpuPeriod: 100000, CpuQuota: 250000, CpuShares: 1024, MemoryLimitInBytes: 1 << 30,
	}}
	got := Init(Host{}, c.Sandbox, InitFiles{}).Annotations
	for key, want := range map[string]string{
		"container-type": "sandbox", "sandbox-log-directory": "/var/log/pods/p", "sandbox-cpu-period": "100000",
		"sandbox-cpu-quota": "250000", "sandbox-cpu-shares": "1024", "sandbox-memory": "1073741824",
	} {
		if got["io.kubernetes.cri."+key] != want {
			t.Errorf("%s is %q, want %q", key, got["io.kubernetes.cri."+key], want)
		}
	}
}
