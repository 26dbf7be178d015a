package arch

import (
	"fmt"
	"go/ast"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// mounters alone may change the mount table: pin for namespaces, rootfs for all
// else, so that what is mounted can be found and taken down in one place. The mount
// of pinder/program is attached nowhere, and goes with the processes that use it; the
// benchmark mounts in a namespace of its own.
var mounters = []string{"pin", "internal/rootfs", "internal/pinder/program", "hack/bench"}

// mountCalls are the functions and system call numbers that change the mount
// table or make mounts that are not yet in it.
var mountCalls = []string{
	"Mount", "Unmount", "MoveMount", "OpenTree", "OpenTreeAttr", "Fsopen", "Fsconfig", "Fsmount", "Fspick", "MountSetattr", "PivotRoot",
	"FsconfigSetFlag", "FsconfigSetString", "FsconfigSetBinary", "FsconfigSetPath", "FsconfigSetFd", "FsconfigCreate",
	"SYS_MOUNT", "SYS_UMOUNT", "SYS_UMOUNT2", "SYS_MOVE_MOUNT", "SYS_OPEN_TREE", "SYS_FSOPEN", "SYS_FSCONFIG",
	"SYS_FSMOUNT", "SYS_FSPICK", "SYS_MOUNT_SETATTR", "SYS_PIVOT_ROOT",
}

// starters may start processes, and for what.
var starters = map[string]string{
	"internal/network":           "CNI plugins, each in a group of its attachment",
	"internal/pinder":            "itself anew, for an upgrade",
	"internal/pinder/oci":        "the OCI runtime",
	"internal/pinder/entry":      "the list of system calls that ends in a command of a container",
	"internal/pinder/spawn":      "children that carry out such a list",
	"internal/pinder/reaper":     "the supervisor, and itself anew",
	"internal/pinder/client":     "pinder",
	"internal/apparmor":          "apparmor_parser, which loads the default profile at start",
	"internal/handler":           "the OCI runtime's own account of its features",
	"internal/network/cniplugin": "children that a plugin leaves behind, on purpose; tests only",
	"hack/bench":                 "daemons, runtimes and itself, to measure them; never installed",
	"hack/bom":                   "the go command, which knows the modules; never installed",
	"hack/vm/vmlinux":            "zstd, to unpack a kernel; never installed",
	"internal/inherited":         "the program itself, once, without the attributes of its starter",
	"internal/testregistry":      "the registry, and the go command that builds it; linked into tests only",
	"internal/testimage":         "busybox, for the names of its applets; linked into tests only",
}

// mountsElsewhere finds uses of mount calls outside of mounters and tests. It
// looks at uses, not only calls: a function value is as good as a call.
func mountsElsewhere(files []source) []string {
	var wrong []string
	for _, f := range files {
		if f.test || slices.Contains(mounters, f.dir) {
			continue
		}
		for _, call := range uses(f, []string{"golang.org/x/sys/unix", "syscall"}) {
			if slices.Contains(mountCalls, call.Sel.Name) {
				wrong = append(wrong, fmt.Sprintf("%s: only pin and internal/rootfs may change the mount table, and this uses %s", f.at(call), call.Sel.Name))
			}
		}
	}
	return wrong
}

// startsElsewhere finds packages that start processes and may not, by os/exec or
// by the system call.
func startsElsewhere(files []source) []string {
	var wrong []string
	for _, f := range files {
		if f.test || starters[f.dir] != "" {
			continue
		}
		for _, use := range uses(f, []string{"os/exec"}) {
			if !slices.Contains([]string{"LookPath", "Error", "ErrNotFound", "ErrDot", "ExitError"}, use.Sel.Name) {
				wrong = append(wrong, fmt.Sprintf("%s: %s may not start processes (exec.%s)", f.at(use), f.dir, use.Sel.Name))
			}
		}
		if f.dir == "pin" || f.dir == "cmd/pinder" {
			// pin clones a held child that runs no program; pinder replaces itself.
			continue
		}
		for _, call := range uses(f, []string{"golang.org/x/sys/unix", "syscall", "os"}) {
			if slices.Contains([]string{"ForkExec", "StartProcess", "Exec", "SYS_CLONE", "SYS_CLONE3", "SYS_FORK", "SYS_VFORK", "SYS_EXECVE"}, call.Sel.Name) {
				wrong = append(wrong, fmt.Sprintf("%s: %s may not start processes (%s)", f.at(call), f.dir, call.Sel.Name))
			}
		}
	}
	return wrong
}

// pure finds in internal/ocispec what reaches outside of it: packages that read,
// write, connect or start, and any function of os, unix or pin that is more than
// a type, a constant or arithmetic.
func pure(files []source) []string {
	harmless := regexp.MustCompile(`^(FileMode|Mode[A-Z]?\w*|Err\w+|[A-Z][A-Z0-9_]+|Mkdev|Major|Minor|Signal\w*|Mappings|MappingError|IDMap|Kind|User|Net|IPC|UTS|PID)$`)
	var wrong []string
	for _, f := range files {
		if f.dir != "internal/ocispec" || f.test {
			continue
		}
		for _, full := range []string{"os/exec", "os/user", "net", "net/http", "io/ioutil"} {
			if _, ok := f.imports()[full]; ok {
				wrong = append(wrong, fmt.Sprintf("%s: internal/ocispec is pure functions; it may not import %s", f.path, full))
			}
		}
		for _, use := range uses(f, []string{"os", "syscall", "golang.org/x/sys/unix", modulePath + "/pin"}) {
			if !harmless.MatchString(use.Sel.Name) {
				wrong = append(wrong, fmt.Sprintf("%s: internal/ocispec is pure functions; it may not use %s", f.at(use), use.Sel.Name))
			}
		}
	}
	return wrong
}

// uses are the selections of a name from one of the given packages.
func uses(f source, packages []string) []*ast.SelectorExpr {
	imports := f.imports()
	var names []string
	for _, full := range packages {
		if name, ok := imports[full]; ok {
			names = append(names, name)
		}
	}
	var found []*ast.SelectorExpr
	ast.Inspect(f.file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if id, ok := sel.X.(*ast.Ident); ok && slices.Contains(names, id.Name) {
			found = append(found, sel)
		}
		return true
	})
	return found
}

func TestOnlyPinAndRootfsMount(t *testing.T) {
	enforce(t, mountsElsewhere, map[string]string{
		"internal/pod/a.go": `package pod; import "golang.org/x/sys/unix"; func f() { unix.Mount("", "", "", 0, "") }`,
		"internal/pod/b.go": `package pod; import sys "syscall"; var undo = sys.Unmount`,
		"internal/pod/c.go": `package pod; import "golang.org/x/sys/unix"; const nr = unix.SYS_MOUNT_SETATTR`,
	}, "internal/pod/a.go:1: ", "internal/pod/b.go:1: ", "internal/pod/c.go:1: ")
}

func TestOnlyNetworkRunsPlugins(t *testing.T) {
	enforce(t, startsElsewhere, map[string]string{
		"internal/pod/a.go":   `package pod; import "os/exec"; var start, find = exec.Command, exec.LookPath`,
		"internal/image/b.go": `package image; import "os"; var start = os.StartProcess`,
	}, "internal/pod may not start processes (exec.Command)", "internal/image/b.go:1: ")
}

func TestSpecHasNoSideEffects(t *testing.T) {
	enforce(t, pure, map[string]string{
		"internal/ocispec/a.go": `package ocispec; import "os"; var mode os.FileMode; var read = os.ReadFile`,
		"internal/ocispec/b.go": `package ocispec; import _ "net"`,
		"internal/ocispec/c.go": `package ocispec; import "golang.org/x/sys/unix"; const c = unix.CAP_CHOWN; var stat = unix.Stat`,
	}, "may not use ReadFile", "may not import net", "may not use Stat")
}

// TestDotImportsAreNotUsed keeps the two rules above honest: they look for names
// behind a package's name.
func TestDotImportsAreNotUsed(t *testing.T) {
	enforce(t, func(files []source) []string {
		var wrong []string
		for _, f := range files {
			for full, name := range f.imports() {
				if name == "." {
					wrong = append(wrong, fmt.Sprintf("%s: imports %s without a name", f.path, strings.TrimSpace(full)))
				}
			}
		}
		return wrong
	}, map[string]string{
		"internal/pod/a.go": `package pod; import . "golang.org/x/sys/unix"`,
	}, "without a name")
}
