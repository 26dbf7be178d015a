package pin

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/testroot"
)

// testMappings is a pod's mapping: 65536 IDs from 100000 upward.
var testMappings = Mappings{
	UIDs: []IDMap{{0, 100000, 65536}},
	GIDs: []IDMap{{0, 100000, 65536}},
}

const all = User | Net | IPC | UTS

// roleVar makes the test binary run as a helper process instead of the tests.
const roleVar = "PIN_TEST_ROLE"

var roles = map[string]func(args []string) error{
	"create-and-pin": roleCreateAndPin,
	"create-forever": roleCreateForever,
	"probe":          roleProbe,
	"take-inotify":   roleTakeInotify,
	"say-owner":      roleSayOwner,
}

// init locks the first thread of the process, so that no test changes it: /proc/self shows that
// thread.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVar); role != "" {
		if err := roles[role](os.Args[1:]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if testroot.Missing() != "" && flag.Lookup("test.skip").Value.String() == "" {
		_ = flag.Set("test.skip", "^Example") // an example cannot skip itself
	}
	var leaks atomic.Int32
	TraceLeaks(func(created string) {
		leaks.Add(1)
		fmt.Println("a Namespace was never closed; made by", created)
	})
	code := m.Run()
	runtime.GC()
	runtime.GC()
	time.Sleep(50 * time.Millisecond) // the runtime has no event for finished clean-ups
	if leaks.Load() > 0 {
		code = 1
	}
	os.Exit(code)
}

// startRole starts a helper process and waits for its first line. At the end of the test the helper
// is killed and waited for, if the test has not done so.
func startRole(t *testing.T, role string, args ...string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), roleVar+"="+role)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%s said %q: %v", role, line, err)
	}
	return cmd, strings.TrimSpace(line)
}

func mustCreate(t testing.TB, m *Mappings, kinds Kind) *Set {
	t.Helper()
	set, err := Create(m, kinds)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { set.Close() })
	return set
}

func mustOpen(t testing.TB, path string) *Namespace {
	t.Helper()
	n, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func mustOwner(t testing.TB, n *Namespace) *Namespace {
	t.Helper()
	owner, err := n.Owner()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { owner.Close() })
	return owner
}

// pinPath returns a path for a pin that is removed at the end of the test.
func pinPath(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pin")
	t.Cleanup(func() {
		if err := Unpin(path); err != nil {
			t.Error(err)
		}
	})
	return path
}

// leftovers is everything that Create, Pin and Open could leave behind.
type leftovers struct {
	fds, children, mounts, files int
}

func findLeftovers(t testing.TB, dir string) leftovers {
	t.Helper()
	// The garbage collector closes a pidfd that os/exec holds for a process.
	runtime.GC()
	return leftovers{
		fds:      len(readDir(t, "/proc/self/fd")),
		children: len(children(t)),
		mounts:   countMounts(t, dir),
		files:    len(readDir(t, dir)),
	}
}

// countMounts counts only below dir: other programs mount, too.
func countMounts(t testing.TB, dir string) int {
	t.Helper()
	return strings.Count(readFile(t, "/proc/self/mountinfo"), " "+dir+"/")
}

// children lists the processes that any thread of this one has made.
func children(t testing.TB) []string {
	t.Helper()
	var pids []string
	for _, tid := range readDir(t, "/proc/self/task") {
		list, err := os.ReadFile("/proc/self/task/" + tid + "/children")
		if err == nil { // the thread may just have ended
			pids = append(pids, strings.Fields(string(list))...)
		}
	}
	return pids
}

func readDir(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// statusField returns one line of /proc/thread-self/status.
func statusField(t testing.TB, name string) string {
	t.Helper()
	lines := strings.Split(readFile(t, "/proc/thread-self/status"), "\n")
	i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, name+":") })
	if i < 0 {
		t.Fatalf("no %s in /proc/thread-self/status", name)
	}
	return lines[i]
}

// threadNamespace opens the calling thread's namespace of a kind.
func threadNamespace(t testing.TB, name string) *Namespace {
	t.Helper()
	return mustOpen(t, "/proc/thread-self/ns/"+name)
}

// setLimit sets a soft limit until the returned function is called.
func setLimit(t testing.TB, resource int, soft uint64) (restore func()) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(resource, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: soft, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := unix.Setrlimit(resource, &old); err != nil {
			t.Fatal(err)
		}
	}
}

// onWeakThread runs fn on a thread without effective capabilities, which then ends.
func onWeakThread(fn func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := dropCapabilities(); err != nil {
			result <- err
			return
		}
		result <- fn()
	}()
	return <-result
}

// dropCapabilities changes the calling thread only.
func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return unix.Capset(&header, &none[0])
}
