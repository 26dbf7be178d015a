package pin

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/testroot"
)

func TestNewUserNamespaceOwnsTheOthers(t *testing.T) {
	testroot.Need(t)
	set := mustCreate(t, &testMappings, all)
	for _, n := range []*Namespace{set.Net, set.IPC, set.UTS} {
		if owner := mustOwner(t, n); !owner.Same(set.User) {
			t.Errorf("%s is owned by %s, want %s", n, owner, set.User)
		}
	}
	host := mustOpen(t, "/proc/self/ns/user")
	if parent := mustOwner(t, set.User); !parent.Same(host) {
		t.Errorf("the parent of %s is %s, want %s", set.User, parent, host)
	}
}

func TestWithoutMappingsTheHostOwnsTheNamespaces(t *testing.T) {
	testroot.Need(t)
	set := mustCreate(t, nil, Net|IPC|UTS)
	if set.User != nil {
		t.Errorf("got %s, want no user namespace", set.User)
	}
	host := mustOpen(t, "/proc/self/ns/user")
	for _, n := range []*Namespace{set.Net, set.IPC, set.UTS} {
		if owner := mustOwner(t, n); !owner.Same(host) {
			t.Errorf("%s is owned by %s, want %s", n, owner, host)
		}
	}
}

func TestOnlyTheKindsAskedForAreNew(t *testing.T) {
	testroot.Need(t)
	set := mustCreate(t, nil, UTS)
	if set.UTS == nil || set.Net != nil || set.IPC != nil || set.User != nil {
		t.Errorf("got %+v, want a UTS namespace only", set)
	}
	if set.UTS.Same(mustOpen(t, "/proc/self/ns/uts")) {
		t.Error("the UTS namespace is the host's")
	}
	set = mustCreate(t, &testMappings, 0)
	if set.User == nil || set.Net != nil || set.IPC != nil || set.UTS != nil {
		t.Errorf("got %+v, want a user namespace only", set)
	}
}

func TestMapsAreAsGiven(t *testing.T) {
	testroot.Need(t)
	m := Mappings{
		UIDs: []IDMap{{0, 200000, 1000}, {1000, 300000, 500}},
		GIDs: []IDMap{{0, 400000, 10}, {100, 500000, 1}},
	}
	path := pinPath(t)
	if err := mustCreate(t, &m, Net).User.Pin(path); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("nsenter", "--user="+path, "cat", "/proc/self/uid_map", "/proc/self/gid_map", "/proc/self/setgroups").CombinedOutput()
	got := strings.Join(strings.Fields(string(out)), " ")
	if want := "0 200000 1000 1000 300000 500 0 400000 10 100 500000 1 allow"; err != nil || got != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func TestImpossibleRequestsAreRefused(t *testing.T) {
	for name, try := range map[string]func() (*Set, error){
		"nothing":                      func() (*Set, error) { return Create(nil, 0) },
		"user without mappings":        func() (*Set, error) { return Create(nil, User|Net) },
		"a mount namespace":            func() (*Set, error) { return Create(nil, Net|Mount) },
		"a pid namespace":              func() (*Set, error) { return Create(&testMappings, PID) },
		"mappings that are both wrong": func() (*Set, error) { return Create(&Mappings{}, all) },
	} {
		set, err := try()
		if !errors.Is(err, ErrInvalid) || set != nil {
			t.Errorf("%s: got %v, %v; want ErrInvalid", name, set, err)
		}
	}
	if err := Probe(Time); !errors.Is(err, ErrInvalid) {
		t.Errorf("Probe(Time): got %v, want ErrInvalid", err)
	}
}

func TestProbeAnswersForWhatCreateCanDo(t *testing.T) {
	testroot.Need(t)
	if err := Probe(all); err != nil {
		t.Error(err)
	}
}

func TestForbiddenByPrivilege(t *testing.T) {
	testroot.Need(t)
	created := onWeakThread(func() error { _, err := Create(nil, Net); return err })
	probed := onWeakThread(func() error { return Probe(Net | UTS) })
	for _, err := range []error{created, probed} {
		if !errors.Is(err, ErrUnsupported) || !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "CAP_SYS_ADMIN") {
			t.Errorf("got %v, want ErrUnsupported, EPERM and the missing capability", err)
		}
	}
}

// TestForbiddenBySysctl lowers a limit inside a new user namespace, which has its own sysctl, and
// calls Create there.
func TestForbiddenBySysctl(t *testing.T) {
	testroot.Need(t)
	if hint, zero := limitsHint(all); zero || !strings.Contains(hint, "user.max_net_namespaces = ") {
		t.Errorf("got %q, %t; want the limits listed", hint, zero)
	}
	// The test binary is passed as a descriptor: the container's root cannot enter its directory.
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	path := pinPath(t)
	if err := mustCreate(t, &testMappings, User).User.Pin(path); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("nsenter", "--user="+path, "sh", "-c",
		"echo 0 > /proc/sys/user/max_net_namespaces && exec /proc/self/fd/3")
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{self}
	cmd.Env = append(os.Environ(), roleVar+"=probe")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "user.max_net_namespaces is 0") || !strings.Contains(string(out), ErrUnsupported.Error()) {
		t.Errorf("got %q, %v; want ErrUnsupported naming the sysctl", out, err)
	}
}

func roleProbe([]string) error { return Probe(Net | UTS) }

func TestThousandRoundsLeaveNothing(t *testing.T) {
	testroot.Need(t)
	rounds := 1000
	if testing.Short() {
		rounds = 100
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "net")
	before := findLeftovers(t, dir)
	for i := range rounds {
		if err := createPinOpenUnpin(path); err != nil {
			t.Fatalf("round %d: %v", i, errors.Join(err, Unpin(path)))
		}
	}
	if after := findLeftovers(t, dir); after != before {
		t.Errorf("before: %+v, after: %+v", before, after)
	}
}

// createPinOpenUnpin does what a sandbox does with its namespaces.
func createPinOpenUnpin(path string) error {
	set, err := Create(&testMappings, all)
	if err != nil {
		return err
	}
	defer set.Close()
	if err := set.Net.Pin(path); err != nil {
		return err
	}
	net, err := Open(path)
	if err != nil {
		return err
	}
	defer net.Close()
	owner, err := net.Owner()
	if err != nil {
		return err
	}
	defer owner.Close()
	if !net.Same(set.Net) || !owner.Same(set.User) {
		return errors.New("the pin leads to other namespaces")
	}
	return Unpin(path)
}

// TestConcurrentCreatesAreIndependent also keeps the garbage collector and the preemption of
// goroutines as busy as possible while children share the memory.
func TestConcurrentCreatesAreIndependent(t *testing.T) {
	testroot.Need(t)
	const workers, rounds = 8, 25
	dir := t.TempDir()
	before := findLeftovers(t, dir)
	var stop atomic.Bool
	var background, work sync.WaitGroup
	background.Go(func() {
		for !stop.Load() {
			runtime.GC()
		}
	})
	for w := range workers {
		work.Go(func() {
			path := filepath.Join(dir, string(rune('a'+w)))
			for range rounds {
				if err := createPinOpenUnpin(path); err != nil {
					t.Error(errors.Join(err, Unpin(path)))
					return
				}
				growStack(200)
			}
		})
	}
	work.Wait()
	stop.Store(true)
	background.Wait()
	if after := findLeftovers(t, dir); after != before {
		t.Errorf("before: %+v, after: %+v", before, after)
	}
}

// growStack makes the goroutine's stack move.
func growStack(depth int) int {
	var pad [256]byte
	if depth == 0 {
		return len(pad)
	}
	pad[depth%len(pad)] = 1
	return growStack(depth-1) + int(pad[depth%len(pad)])
}

func TestCallerThreadIsAsBefore(t *testing.T) {
	testroot.Need(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fields := []string{"SigBlk", "SigPnd", "CapEff", "Uid", "Gid"}
	var before []string
	for _, f := range fields {
		before = append(before, statusField(t, f))
	}
	home := threadNamespace(t, "net")
	mustCreate(t, &testMappings, all)
	for i, f := range fields {
		if after := statusField(t, f); after != before[i] {
			t.Errorf("before %q, after %q", before[i], after)
		}
	}
	if now := threadNamespace(t, "net"); !now.Same(home) {
		t.Errorf("the thread is in %s, was in %s", now, home)
	}
}

// TestRunningOutOfDescriptorsLeavesNothing makes each system call fail in turn that needs a
// descriptor, with and without PIDFD_GET_…_NAMESPACE.
func TestRunningOutOfDescriptorsLeavesNothing(t *testing.T) {
	testroot.Need(t)
	dir := t.TempDir()
	before := findLeftovers(t, dir)
	failures := 0
	for room := uint64(0); room < 12; room++ {
		set, err := createWithRoom(t, room)
		if err != nil {
			failures++
			if !errors.Is(err, unix.EMFILE) || set != nil {
				t.Errorf("room for %d: got %v, %v; want EMFILE", room, set, err)
			}
		} else {
			set.Close()
		}
		if after := findLeftovers(t, dir); after != before {
			t.Fatalf("room for %d: before: %+v, after: %+v", room, before, after)
		}
	}
	// pidfd, /proc/PID, uid_map or a namespace each, up to four namespaces.
	if failures != 6 {
		t.Errorf("%d failures, want 6: is a descriptor opened that the test does not know of?", failures)
	}
}

// createWithRoom calls Create with room for a number of new descriptors.
func createWithRoom(t *testing.T, room uint64) (*Set, error) {
	t.Helper()
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	// Fill the gaps, so that the limit says how many more there can be.
	for {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
		if len(fds) > 32 {
			break
		}
	}
	highest := fds[len(fds)-1]
	defer setLimit(t, unix.RLIMIT_NOFILE, uint64(highest)+1+room)()
	return Create(&testMappings, all)
}
