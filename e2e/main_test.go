package e2e

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/containerd/nri/pkg/api"

	"github.com/pinfold-run/pinfold/internal/testregistry"
	"github.com/pinfold-run/pinfold/internal/testroot"
)

// insideVariable tells the process that it is in namespaces of its own already.
const insideVariable = "PINFOLD_E2E_INSIDE"

// binaries are the programs under test, built once, and those they use.
var binaries struct {
	dir                       string
	pinfoldd, pinder, pinfold string
	// handler is the name of the OCI runtime that the tests run with, runtime its path.
	handler, runtime, cniBin string
}

func TestMain(m *testing.M) {
	if os.Getenv(api.PluginNameEnvVar) != "" {
		os.Exit(launchedPlugin())
	}
	if who := os.Getenv(reachVariable); who != "" {
		os.Exit(reach(who))
	}
	if why := testroot.Missing(); why != "" {
		fmt.Println("no end-to-end test was run:", why)
		os.Exit(0)
	}
	if os.Getenv(insideVariable) == "" {
		fmt.Fprintln(os.Stderr, enterNamespaces())
		os.Exit(1)
	}
	os.Exit(runInside(m))
}

// enterNamespaces starts this program again in new network and mount namespaces. It returns only on failure.
func enterNamespaces() error {
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		return err
	}
	args := append([]string{"unshare", "--net", "--mount", "--propagation", "private"}, os.Args...)
	return syscall.Exec(unshare, args, append(os.Environ(), insideVariable+"=1"))
}

func runInside(m *testing.M) int {
	dir, err := os.MkdirTemp("", "pinfold-e2e-bin-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = prepare(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "set-up:", err)
		return 1
	}
	return m.Run()
}

func prepare(dir string) error {
	repo, err := filepath.Abs("..")
	if err != nil {
		return err
	}
	binaries.dir = dir
	binaries.pinfoldd = filepath.Join(dir, "pinfoldd")
	binaries.pinder = filepath.Join(dir, "pinder")
	binaries.pinfold = filepath.Join(dir, "pinfold")
	if err := goBuild(dir, filepath.Join(repo, "cmd"), "pinfoldd", "pinder", "pinfold"); err != nil {
		return err
	}
	if err := goBuild(dir, filepath.Join(repo, "internal/testregistry"), "server"); err != nil {
		return err
	}
	if err := os.Setenv(testregistry.Variable, filepath.Join(dir, "server")); err != nil {
		return err
	}
	binaries.handler = cmp.Or(os.Getenv(runtimeVariable), "runc")
	if binaries.runtime, err = ociRuntime(binaries.handler); err != nil {
		return err
	}
	binaries.cniBin = os.Getenv("PINFOLD_CNI_BIN")
	if binaries.cniBin == "" {
		binaries.cniBin = filepath.Join(repo, "build/tools/cni")
	}
	if _, err := os.Stat(filepath.Join(binaries.cniBin, "bridge")); err != nil {
		return fmt.Errorf("CNI plugins: %w (make tools builds them)", err)
	}
	// The node of the tests has nothing but loopback.
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("ip link: %w: %s", err, out)
	}
	for _, key := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		if err := os.WriteFile("/proc/sys/"+key, []byte("1"), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// prebuiltVariable names a directory that has the programs already: for a machine that is too slow to
// build them. They must be built with the tag failpoints.
const prebuiltVariable = "PINFOLD_E2E_BIN"

// goBuild makes programs in dir from packages below source, or links to those that were built before.
func goBuild(dir, source string, names ...string) error {
	for _, name := range names {
		if prebuilt := os.Getenv(prebuiltVariable); prebuilt != "" {
			if err := os.Symlink(filepath.Join(prebuilt, name), filepath.Join(dir, name)); err != nil {
				return err
			}
			continue
		}
		build := exec.Command("go", "build", "-tags", "failpoints", "-o", filepath.Join(dir, name), ".")
		build.Dir = filepath.Join(source, name)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	return nil
}
