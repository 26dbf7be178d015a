package arch

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// mayImport says, for each package of the project, which others of the project
// it may import. The order is that of ARCHITECTURE.md, from the ground up: a
// package imports only packages above it here. A package that is missing here is
// an error, so that a new one is placed on purpose. Tests are bound by the same
// order, except that they may also use forTests.
var mayImport = []struct {
	dir     string
	imports []string
	reason  string
}{
	{"api/pinfold/v1", nil, "public: messages and the service on the wire, generated"},
	{"pin", nil, "public: of use without the rest, so it imports none of it"},
	{"internal/logwriter", nil, "how either side's log is written"},
	{"internal/fault", nil, "panics of anything"},
	{"internal/goroutines", nil, "what a program does, whatever it is"},
	{"internal/logline", []string{"internal/logwriter"}, "how a line of the daemon's log looks, whatever is in it"},
	{"internal/inherited", nil, "attributes of processes, set at the start of either side"},
	{"internal/duration", nil, "arithmetic with numbers that come from outside"},
	{"internal/tree", nil, "trees that containers make; it knows nothing of containers"},
	{"internal/steps", []string{"internal/fault"}, "an engine of steps that knows nothing of pods"},
	{"internal/metrics", []string{"internal/steps"}, "numbers with names; what they are of it is told"},
	{"internal/kernel/durable", nil, "how files are replaced, whatever is in them"},
	{"internal/record", []string{"internal/kernel/durable"}, "durable files that know nothing of what they hold"},
	{"internal/regular", nil, "how a file that other programs or people have written is read"},
	{"internal/kernel/mountinfo", nil, "one file of the kernel's"},
	{"internal/kernel/proc", nil, "processes as the kernel knows them"},
	{"internal/pinder/wire", []string{"internal/kernel/proc"}, "the words that daemon and pinder share; either side links it"},
	{"internal/kernel/cgroup", []string{"internal/tree", "internal/kernel/mountinfo", "internal/kernel/proc"}, "groups as the kernel knows them; of our own only where they lie"},
	{"internal/sdnotify", nil, "what a service manager is told"},
	{"internal/handler", nil, "what an OCI runtime can do, asked of its binary"},
	{"internal/config", []string{"internal/regular"}, "keys, flags and defaults"},
	{"internal/testimage", nil, "checks what reads images, so it shares no code with it"},
	{"internal/rootfs", []string{"pin", "internal/kernel/mountinfo"}, "with pin the only one that mounts"},
	{"internal/testkubectl/client", nil, "kubectl's end of sessions, a module of its own"},
	{"internal/testregistry", nil, "starts a registry and pushes to it; linked into tests only"},
	{"internal/testregistry/server", nil, "the registry, a module of its own"},
	{"internal/testcollector", nil, "a collector of spans; linked into tests only"},
	{"internal/testroot", nil, "leaves out tests that need root; linked into tests only"},
	{"internal/manpage", nil, "manual pages of any command; linked into tests only"},
	{"internal/ocispec", []string{"pin", "internal/kernel/cgroup"}, "pure functions from a CRI configuration to a runtime spec; of pin it uses the types"},
	{"internal/selinux", []string{"internal/tree"}, "labels of files and a policy's words for containers; ocispec decides who gets which label"},
	{"internal/host", []string{"internal/kernel/cgroup", "internal/kernel/proc", "internal/pinder/wire", "internal/ocispec", "internal/selinux"}, "what this node can do, in the words of ocispec (and of wire: the names of resource limits)"},
	{"internal/image/secret", nil, "credentials and texts, nothing else"},
	{"internal/trace", []string{"internal/steps", "internal/image/secret"}, "spans of what it is told; of secret it uses the cleaning of texts"},
	{"internal/image/reference", []string{"internal/image/secret"}, "names of images, layers and blobs; a name that is refused may hold a password"},
	{"internal/image/keylock", nil, "locks that know nothing of what they guard"},
	{"internal/image/tarfile", nil, "a stream in, a stream out"},
	{"internal/image/blob", []string{"internal/image/keylock"}, "blobs by digest; which image needs one it does not know"},
	{"internal/image/layer", []string{"internal/fault", "internal/image/reference", "internal/image/keylock", "internal/image/tarfile", "internal/image/blob", "internal/kernel/durable", "internal/tree"}, "layers by chain ID; which image needs one it does not know"},
	{"internal/image/registry", []string{
		"internal/image/secret", "internal/image/reference", "internal/image/blob", "internal/image/layer", "internal/regular",
	}, "what hosts send goes into the content store; what an image is it does not know (of layer: which blobs are layers)"},
	{"internal/image", []string{
		"internal/fault", "internal/image/secret", "internal/image/reference", "internal/image/keylock", "internal/image/tarfile", "internal/image/blob", "internal/image/layer",
		"internal/image/registry", "internal/kernel/durable", "internal/tree", "internal/steps",
	}, "images are the same for every pod: it knows none"},
	{"internal/network/builtin", []string{"internal/fault", "internal/regular"}, "calls of plugins without their processes; which plugin is called with what it is told"},
	{"internal/network", []string{"internal/network/builtin", "internal/regular", "internal/kernel/cgroup", "internal/steps"}, "plugins run in groups; it gets a pin as a path"},
	{"internal/pinder/descriptor", nil, "system calls on file descriptors, nothing of pinder's"},
	{"internal/pinder/ownlog", []string{"internal/logwriter"}, "every room writes to it, so it knows none"},
	{"internal/pinder/logpump", []string{"internal/pinder/descriptor", "internal/pinder/ownlog"}, "bytes from pipes to a log; it knows no containers, so it is tested without them"},
	{"internal/pinder/link", []string{"internal/kernel/proc", "internal/pinder/descriptor", "internal/pinder/wire"}, "the words that pinder's two processes share; of wire it uses the socket"},
	{"internal/pinder/program", nil, "pinder's own file; it knows nothing else"},
	{"internal/pinder/reaper", []string{"internal/kernel/proc", "internal/pinder/descriptor", "internal/pinder/link", "internal/pinder/ownlog", "internal/pinder/program"}, "it must never fail, so nothing else is near"},
	{"internal/pinder/oci", []string{"internal/duration", "internal/kernel/proc", "internal/kernel/cgroup", "internal/pinder/wire", "internal/pinder/descriptor", "internal/pinder/ownlog"}, "calls of OCI runtimes and what they leave; it knows no containers of pinder's"},
	{"internal/pinder/spawn", nil, "children out of lists of system calls; it knows no containers"},
	{"internal/pinder/entry", []string{"internal/pinder/spawn", "internal/pinder/wire"}, "the list for an exec; it starts nothing"},
	{"internal/pinder/filter", []string{"internal/kernel/proc", "internal/pinder/spawn"}, "a question to the kernel; it starts nothing"},
	{"internal/pinder/keeper", []string{"internal/kernel/durable", "internal/kernel/proc", "internal/kernel/cgroup", "internal/pinder/wire", "internal/pinder/descriptor", "internal/pinder/link", "internal/pinder/logpump", "internal/pinder/oci", "internal/pinder/ownlog", "internal/pinder/spawn", "internal/pinder/entry", "internal/pinder/filter", "internal/pinder/program", "internal/kernel/mountinfo"}, "containers and execs; it knows no connections of daemons"},
	{"internal/pinder", []string{"internal/goroutines", "internal/kernel/proc", "internal/pinder/wire", "internal/pinder/descriptor", "internal/pinder/keeper", "internal/pinder/link", "internal/pinder/oci", "internal/pinder/ownlog", "internal/pinder/reaper", "internal/pinder/program"}, "the roof: small, static and replaceable, so it links nothing of the daemon"},
	{"internal/pinder/client", []string{"internal/pinder/wire", "internal/duration", "internal/steps"}, "the daemon's end of the same protocol"},
	{"internal/pinder/pair", []string{"internal/pinder/wire", "internal/pinder/client", "internal/pinder/spawn", "internal/pinder/filter"}, "tests of pinder's processes, through the daemon's end"},
	{"internal/cdi", []string{"internal/regular"}, "vendors' device files and an OCI configuration, nothing of ours"},
	{"internal/apparmor", nil, "a profile and a list of profiles"},
	{"internal/pod", []string{
		"pin", "internal/steps", "internal/record", "internal/kernel/proc", "internal/kernel/cgroup", "internal/handler", "internal/rootfs",
		"internal/ocispec", "internal/image", "internal/network", "internal/pinder/wire",
	}, "the model: records, states, book, events, names"},
	{"internal/pod/lifecycle", []string{
		"internal/fault", "pin", "internal/tree", "internal/cdi", "internal/apparmor", "internal/selinux", "internal/steps", "internal/regular", "internal/kernel/durable", "internal/kernel/proc", "internal/rootfs",
		"internal/ocispec", "internal/handler", "internal/image", "internal/network", "internal/pinder/wire", "internal/pinder/client", "internal/pod",
	}, "the operations: it puts all of the above together"},
	{"internal/pod/session", []string{"pin", "internal/ocispec", "internal/pinder/wire", "internal/pinder/client", "internal/pod"}, "clients' streams on one side, containers and pods on the other"},
	{"internal/pod/recovery", []string{"internal/fault", "pin", "internal/tree", "internal/steps", "internal/record", "internal/kernel/proc", "internal/kernel/durable", "internal/ocispec", "internal/image", "internal/network", "internal/pinder/wire", "internal/pod", "internal/pod/lifecycle"}, "compares, and finishes by operations"},
	{"internal/pod/scenario", []string{
		"pin", "internal/steps", "internal/record", "internal/kernel/cgroup", "internal/kernel/proc", "internal/handler", "internal/rootfs", "internal/image", "internal/network",
		"internal/pinder/client", "internal/pinder/wire", "internal/pod", "internal/pod/lifecycle", "internal/pod/recovery",
	}, "tests only: operations and recovery together, on parts that are made up"},
	{"internal/streamclient", nil, "the client's end of sessions; it shares no code with the server's"},
	{"internal/stream", []string{"internal/fault", "internal/pod/session", "internal/streamclient"}, "sessions of clients: the protocols on one side, package session on the other (the client: tests)"},
	{"internal/nri", []string{"internal/pod"}, "plugins see pods and containers, and change them through functions that it is given"},
	{"internal/stats", []string{"internal/fault", "pin", "internal/tree", "internal/kernel/cgroup", "internal/kernel/proc"}, "files of the kernel; it gets processes, paths and pins"},
	{"internal/containerd", []string{"internal/fault", "internal/handler", "internal/image", "internal/kernel/cgroup", "internal/kernel/proc", "internal/ocispec", "internal/pod", "internal/stats"}, "gRPC in and out, of containerd's API: it reads records and changes nothing (of cgroup and proc: the groups that stand for pods; of handler and ocispec: records, in tests)"},
	{"internal/cri", []string{"internal/fault", "pin", "internal/duration", "internal/steps", "internal/ocispec", "internal/pod", "internal/pod/lifecycle", "internal/pod/recovery", "internal/pod/session", "internal/image", "internal/image/registry", "internal/image/secret", "internal/handler", "internal/network", "internal/stats", "internal/stream"}, "gRPC in and out: it validates and translates"},
	{"internal/admin", []string{"internal/fault", "api/pinfold/v1", "internal/image", "internal/steps", "internal/pod/recovery"}, "gRPC in and out, of what the node offers beyond CRI"},
	{"internal/migrate", []string{"internal/kernel/durable", "internal/regular"}, "another runtime's store and the kubelet's files, nothing of Pinfold's"},
	{"internal/doctor", []string{"internal/config", "internal/handler", "internal/kernel/mountinfo", "internal/network", "internal/regular", "internal/rootfs"}, "looks at a node without a daemon, with the eyes of the daemon's parts"},
	{"internal/daemon", []string{
		"internal/fault", "api/pinfold/v1", "pin", "internal/steps", "internal/record", "internal/kernel/cgroup", "internal/kernel/mountinfo", "internal/handler", "internal/config", "internal/rootfs", "internal/host", "internal/sdnotify",
		"internal/image", "internal/image/registry", "internal/network", "internal/pinder/wire", "internal/pinder/client", "internal/cdi", "internal/apparmor", "internal/pod", "internal/pod/lifecycle", "internal/pod/session", "internal/pod/recovery", "internal/nri", "internal/stats", "internal/stream", "internal/cri", "internal/admin", "internal/metrics", "internal/trace", "internal/logwriter", "internal/containerd",
	}, "puts the daemon together"},
	{"cmd/pinder", []string{"internal/inherited", "internal/logwriter", "internal/pinder", "internal/pinder/oci", "internal/pinder/reaper", "internal/pinder/wire"}, "the same as internal/pinder"},
	{"cmd/pinfold", []string{"api/pinfold/v1", "internal/regular", "internal/ocispec", "internal/image/reference", "internal/streamclient", "internal/config", "internal/doctor", "internal/migrate"}, "a client: it reaches the daemon through its socket only (of ocispec: the paths that a confined container does not see; of reference: full names of images; of config: what doctor compares the node with)"},
	{"cmd/pinfoldd", []string{"internal/goroutines", "internal/sdnotify", "internal/config", "internal/daemon", "internal/inherited", "internal/logline", "internal/logwriter"}, "arguments, signals, exit code"},
	{"internal/network/cniplugin", nil, "a programmable plugin for the tests of network; never installed"},
	{"e2e", []string{"pin", "internal/testcollector", "internal/testimage", "internal/testregistry", "internal/testroot"}, "uses the three binaries as an operator does"},
	{"internal/arch", nil, "reads the others as text"},
	{"hack/busybox-image", []string{"internal/testimage"}, "a command around it"},
	{"hack/bench", []string{"pin"}, "a client of CRI, and the same work without a daemon"},
	{"hack/bom", nil, "what the packages say of the libraries in the binaries"},
	{"packaging", []string{"internal/pod"}, "no code: tests of the scripts that make packages, beside what the daemon makes"},
	{"hack/vm/vmlinux", nil, "unpacks the kernel for the test VM"},
}

// forTests are the packages that only tests use.
var forTests = []string{"internal/testcollector", "internal/testimage", "internal/testregistry", "internal/testroot", "internal/manpage"}

// outside says which packages alone may import something from outside; all
// others may not. A prefix stands for everything below it.
var outside = []struct {
	prefix string
	dirs   []string
	reason string
}{
	{"google.golang.org/grpc", []string{"internal/containerd", "internal/testcollector", "internal/metrics", "internal/trace", "internal/cri", "internal/admin", "internal/daemon", "internal/migrate", "cmd/pinfold", "hack/bench"}, "errors have classes until cri makes gRPC codes of them"},
	{"github.com/containernetworking", []string{"internal/network", "internal/network/builtin", "hack/bench"}, "one package speaks CNI, and one does what plugins do; the benchmark does the same work without a daemon"},
	{"github.com/vishvananda", []string{"internal/network/builtin"}, "one package changes interfaces, addresses and routes"},
	{"github.com/containerd/containerd", []string{"internal/image", "internal/image/tarfile", "internal/image/blob", "internal/image/layer", "internal/image/registry", "internal/containerd", "internal/migrate"}, "containerd's libraries serve images; its API has one server and one client"},
	{"github.com/opencontainers/image-spec", []string{"internal/image", "internal/image/layer", "internal/image/registry", "internal/ocispec", "internal/migrate"}, "an image's configuration becomes a container's"},
	{"github.com/opencontainers/selinux", []string{"internal/selinux"}, "one package speaks with the kernel's SELinux"},
	{"github.com/moby/spdystream", []string{"internal/stream"}, "one package speaks SPDY and WebSocket"},
	{"golang.org/x/net", []string{"internal/stream", "internal/streamclient"}, "one package serves SPDY and WebSocket, another is a client"},
	{"k8s.io/cri-api", []string{"internal/stream", "internal/cri", "internal/ocispec", "internal/pod", "internal/pod/lifecycle", "internal/pod/recovery", "internal/daemon", "internal/nri", "cmd/pinfold", "hack/bench"}, "the layers below speak their own words"},
	{"github.com/spf13/", []string{"internal/config", "internal/manpage", "cmd/pinfold", "cmd/pinfoldd"}, "commands with subcommands; the packages below have no command line (of config: its flags)"},
	{"github.com/prometheus", []string{"internal/metrics"}, "one package speaks the format of Prometheus"},
	{"github.com/go-logr", []string{"internal/trace"}, "the log of the library that makes spans"},
	{"go.opentelemetry.io", []string{"internal/trace", "internal/testcollector"}, "one package makes spans"},
	{"k8s.io/client-go", []string{"internal/testkubectl/client"}, "the client of the field, for tests only"},
	{"github.com/google/go-containerregistry", []string{"internal/testregistry/server"}, "a registry for tests only"},
}

// standardOnly may import nothing but the standard library, golang.org/x/sys and
// what mayImport grants: pin for its users' sake, the others to stay small.
var standardOnly = []string{
	"pin", "internal/duration", "internal/fault", "internal/goroutines", "internal/inherited", "internal/logline", "internal/logwriter", "internal/tree", "internal/testimage",
	"internal/kernel/mountinfo", "internal/kernel/durable", "internal/kernel/proc", "internal/kernel/cgroup",
	"internal/pinder/wire", "internal/pinder/descriptor", "internal/pinder/ownlog", "internal/pinder/logpump",
	"internal/pinder/link", "internal/pinder/reaper", "internal/pinder/oci", "internal/pinder/program", "internal/pinder/spawn", "internal/pinder/entry", "internal/pinder/filter", "internal/pinder/keeper", "internal/pinder", "cmd/pinder",
}

func importOrder(files []source) []string {
	var wrong []string
	for _, f := range files {
		place := slices.IndexFunc(mayImport, func(p struct {
			dir     string
			imports []string
			reason  string
		},
		) bool {
			return p.dir == f.dir
		})
		if place < 0 {
			wrong = append(wrong, fmt.Sprintf("%s: package %s has no place in the table of internal/arch/imports_test.go", f.path, f.dir))
			continue
		}
		entry := mayImport[place]
		for full := range f.imports() {
			dir, ours := strings.CutPrefix(full, modulePath+"/")
			if !ours || dir == f.dir || slices.Contains(entry.imports, dir) || (f.test && slices.Contains(forTests, dir)) {
				continue
			}
			wrong = append(wrong, fmt.Sprintf("%s: %s may not import %s (%s)", f.path, f.dir, dir, entry.reason))
		}
	}
	return wrong
}

func outsideImports(files []source) []string {
	var wrong []string
	for _, f := range files {
		for full := range f.imports() {
			wrong = append(wrong, outsideImport(f, full)...)
		}
	}
	return wrong
}

func outsideImport(f source, full string) []string {
	var wrong []string
	first, _, _ := strings.Cut(full, "/")
	if slices.Contains(standardOnly, f.dir) && !f.test && strings.Contains(first, ".") &&
		!strings.HasPrefix(full, modulePath) && !strings.HasPrefix(full, "golang.org/x/sys/") {
		wrong = append(wrong, fmt.Sprintf("%s: %s may import only the standard library and golang.org/x/sys, not %s", f.path, f.dir, full))
	}
	for _, o := range outside {
		if strings.HasPrefix(full, o.prefix) && !f.test && !slices.Contains(o.dirs, f.dir) {
			wrong = append(wrong, fmt.Sprintf("%s: %s may not import %s (%s)", f.path, f.dir, full, o.reason))
		}
	}
	return wrong
}

// unusedRights finds what the tables allow and no file uses.
func unusedRights(files []source) []string {
	used, usedOutside := map[string]bool{}, map[string]bool{}
	for _, f := range files {
		for full := range f.imports() {
			if dir, ours := strings.CutPrefix(full, modulePath+"/"); ours {
				used[f.dir+" "+dir] = true
			}
			for _, o := range outside {
				if strings.HasPrefix(full, o.prefix) && !f.test {
					usedOutside[f.dir+" "+o.prefix] = true
				}
			}
		}
	}
	var wrong []string
	for _, entry := range mayImport {
		for _, dir := range entry.imports {
			if !used[entry.dir+" "+dir] {
				wrong = append(wrong, fmt.Sprintf("%s may import %s and does not: take the right away", entry.dir, dir))
			}
		}
	}
	for _, o := range outside {
		for _, dir := range o.dirs {
			if !usedOutside[dir+" "+o.prefix] {
				wrong = append(wrong, fmt.Sprintf("%s may import %s and does not: take the right away", dir, o.prefix))
			}
		}
	}
	return wrong
}

func TestNoRightOfTheTablesIsUnused(t *testing.T) {
	enforce(t, unusedRights, map[string]string{
		"internal/stream/a.go": `package stream`,
	}, "internal/stream may import internal/pod", "internal/stream may import golang.org/x/net")
}

func TestImportsFollowTheDependencyOrder(t *testing.T) {
	enforce(t, importOrder, map[string]string{
		"internal/steps/a.go": `package steps; import _ "github.com/pinfold-run/pinfold/internal/pod"`,
		"internal/novel/a.go": `package novel`,
	}, "internal/steps may not import internal/pod", "internal/novel has no place")
}

func TestTheTableOfImportsIsInOrder(t *testing.T) {
	above := map[string]bool{}
	for _, entry := range mayImport {
		for _, dir := range entry.imports {
			if !above[dir] {
				t.Errorf("%s imports %s, which does not stand above it", entry.dir, dir)
			}
		}
		if entry.reason == "" {
			t.Errorf("%s has no reason", entry.dir)
		}
		above[entry.dir] = true
	}
}

func TestOutsideImportsStayWhereTheyBelong(t *testing.T) {
	enforce(t, outsideImports, map[string]string{
		"internal/pod/a.go": `package pod; import _ "google.golang.org/grpc/codes"`,
		"pin/a.go":          `package pin; import _ "github.com/containerd/errdefs"`,
	}, "internal/pod may not import google.golang.org/grpc/codes", "only the standard library")
}

// TestPinderLinksOnlyTheStandardLibrary asks the go command, because what counts
// is everything that is linked, not only what is imported first-hand.
func TestPinderLinksOnlyTheStandardLibrary(t *testing.T) {
	if wrong := strangers("fmt\ngolang.org/x/sys/unix\n" + modulePath + "/internal/pod\nexample.com/x\n"); len(wrong) != 2 {
		t.Fatalf("the rule cannot fail: in its bad example it finds %q", wrong)
	}
	for _, dir := range []string{"./cmd/pinder", "./internal/inherited", "./internal/logwriter", "./internal/pinder", "./internal/pinder/wire", "./pin"} {
		cmd := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", dir)
		cmd.Dir = root
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Errorf("go list %s: %v: %s", dir, err, stderr.String())
			continue
		}
		for _, stranger := range strangers(string(out)) {
			t.Errorf("%s links %s", dir, stranger)
		}
	}
}

// strangers are the listed packages that pinder may not link.
func strangers(list string) []string {
	var wrong []string
	for pkg := range strings.FieldsSeq(list) {
		first, _, _ := strings.Cut(pkg, "/")
		dir, own := strings.CutPrefix(pkg, modulePath+"/")
		if strings.Contains(first, ".") && !strings.HasPrefix(pkg, "golang.org/x/sys/") && (!own || !slices.Contains(standardOnly, dir)) {
			wrong = append(wrong, pkg)
		}
	}
	return wrong
}
