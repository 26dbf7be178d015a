package daemon

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/cdi"
	"github.com/pinfold-run/pinfold/internal/config"
	"github.com/pinfold-run/pinfold/internal/pod/recovery"
)

// logStart says who starts, with what configuration.
func (p Process) logStart(c *config.Config) {
	p.Log.Info("pinfoldd starts", "version", p.Version, "go", runtime.Version(), "kernel", kernelRelease(), "pid", os.Getpid(),
		"files", strings.Join(p.Files, " "), "root", c.Root, "state", c.State)
}

func kernelRelease() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return ""
	}
	release, _, _ := bytes.Cut(name.Release[:], []byte{0})
	return string(release)
}

// logNode says what was found on this node. Nothing is run for it: the runtimes follow when they
// have been asked.
func (p *parts) logNode(c *config.Config) {
	driver := config.Cgroupfs
	if p.Host.SystemdCgroup {
		driver = config.Systemd
	}
	version := 1
	if p.Host.CgroupV2 {
		version = 2
	}
	criu, err := exec.LookPath("criu")
	if err != nil {
		criu = "missing"
	}
	p.Log.Info("this node", "cgroup_version", version, "cgroup_driver", driver, "user_namespaces", p.node.userNamespaces == nil,
		"recursive_read_only", p.Host.Features.RecursiveReadOnly, "swap_limits", p.Host.SwapSupported, "apparmor", p.Host.AppArmor,
		"selinux", p.Host.SELinux, "seccomp", p.Host.Seccomp, "criu", criu, "cni_conf_dir", c.CNIConfDir, "cni_bin_dir", c.CNIBinDir,
		"nri_socket", c.NRISocket, "cdi_dirs", strings.Join(cdi.DefaultDirs(), " "))
}

// logRecovered says what an earlier run left, and what became of it.
func (p *parts) logRecovered(took time.Duration) {
	results := map[string]int{}
	for found, n := range p.recovery.Found() {
		results[found.Result] += n
	}
	p.Log.Info("recovered what an earlier run left", "pods", len(p.Book.Sandboxes()), "containers", len(p.Book.Containers()),
		"ended", results[recovery.Ended], "unfinished", results[recovery.Unfinished], "unreadable", results[recovery.Unreadable],
		"unrecorded", results[recovery.Unrecorded], "leftovers_removed", p.recovery.LeftoversRemoved(), "debts", p.debts.Count(),
		"took", took.Round(time.Millisecond))
}

// logRuntimes says which runtimes there are. It runs them, and waits for them.
func (p *parts) logRuntimes(ctx context.Context) {
	for _, h := range p.node.handlers.All(ctx) {
		if h.Name == "" && p.node.handlers.Has(p.node.handlers.Default()) {
			continue // the default one, which comes under its name
		}
		args := []any{"handler", h.Name, "default", h.Name == p.node.handlers.Default(), "path", h.Path}
		if h.Problem != nil {
			p.Log.Warn("an OCI runtime is missing, or does not say what it can do", append(args, "error", h.Problem)...)
			continue
		}
		p.Log.Info("an OCI runtime was found", append(args, "version", h.Version, "user_namespaces", h.UserNamespaces)...)
	}
}
