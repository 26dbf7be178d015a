package pin

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/testroot"
)

func TestAUserNamespaceBelongsToItsMappedRoot(t *testing.T) {
	testroot.Need(t)
	for _, m := range []*Mappings{
		&testMappings,
		{UIDs: []IDMap{{0, 300000, 1}}, GIDs: []IDMap{{0, 400000, 1}}},
		{UIDs: []IDMap{{1000, 500000, 10}, {0, 600000, 10}}, GIDs: []IDMap{{5, 1, 1}, {0, 4294967294, 1}}},
		{UIDs: []IDMap{{0, 4294967294, 1}}, GIDs: []IDMap{{0, 65534, 1}}},
	} {
		set := mustCreate(t, m, all)
		want, _ := m.HostUID(0)
		for _, n := range []*Namespace{set.User, set.Net, set.IPC, set.UTS} {
			if uid, err := n.OwnerUID(); err != nil || uid != want {
				t.Errorf("%v: %s is charged to %d (%v), want %d", m.UIDs, n, uid, err, want)
			}
		}
		if set.OwnerErr != nil {
			t.Errorf("%v: %v", m.UIDs, set.OwnerErr)
		}
	}
	plain := mustCreate(t, nil, Net)
	if uid, err := plain.Net.OwnerUID(); err != nil || uid != 0 {
		t.Errorf("without mappings it is charged to %d: %v", uid, err)
	}
}

// What one pod uses of a limit must not count for the node's root.
func TestInotifyInstancesInAUserNamespaceAreNotRoots(t *testing.T) {
	testroot.Need(t)
	set := mustCreate(t, &testMappings, User)
	var taken string
	err := set.User.WithFD(func(fd int) error {
		// By a descriptor: others cannot enter the program's directory.
		self, err := os.Open("/proc/self/exe")
		if err != nil {
			return err
		}
		defer self.Close()
		enter := exec.Command("nsenter", fmt.Sprintf("--user=/proc/%d/fd/%d", os.Getpid(), fd), "-S", "0", "-G", "0", "/proc/self/fd/3")
		enter.ExtraFiles = []*os.File{self}
		enter.Env = append(os.Environ(), roleVar+"=take-inotify")
		enter.Stderr = os.Stderr
		in, err := enter.StdinPipe()
		if err != nil {
			return err
		}
		out, err := enter.StdoutPipe()
		if err != nil {
			return err
		}
		if err := enter.Start(); err != nil {
			return err
		}
		t.Cleanup(func() { in.Close(); _ = enter.Wait() })
		line := make([]byte, 64)
		n, err := out.Read(line)
		taken = strings.TrimSpace(string(line[:n]))
		return err
	})
	if err != nil || !strings.HasPrefix(taken, "took ") {
		t.Fatalf("the helper said %q: %v", taken, err)
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatalf("a user namespace %s, and root has no inotify instance left: %v", taken, err)
	}
	unix.Close(fd)
}

// roleTakeInotify takes all instances that it can get and holds them until its standard input ends.
func roleTakeInotify([]string) error {
	count := 0
	for count < 100000 {
		if _, err := unix.InotifyInit1(unix.IN_CLOEXEC); err != nil {
			break
		}
		count++
	}
	fmt.Println("took", count)
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func TestWithoutTheRightsTheNamespaceIsTheCallersAndSaysWhy(t *testing.T) {
	testroot.Need(t)
	for _, capability := range []uintptr{unix.CAP_SYS_PTRACE, unix.CAP_SETPCAP} {
		started := make(chan string)
		go func() {
			defer close(started)
			runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0); err != nil {
				t.Error(err)
				return
			}
			_, line := startRole(t, "say-owner")
			started <- line
		}()
		want := "owner 0, for a reason: true"
		if capability == unix.CAP_SETPCAP { // not needed
			want = "owner 100000, for a reason: false"
		}
		if line := <-started; line != want {
			t.Errorf("without capability %d: %s, want %s", capability, line, want)
		}
	}
}

func roleSayOwner([]string) error {
	set, err := Create(&testMappings, all)
	if err != nil {
		return err
	}
	defer set.Close()
	uid, err := set.User.OwnerUID()
	fmt.Printf("owner %d, for a reason: %t\n", uid, set.OwnerErr != nil)
	return err
}

func TestNoThreadKeepsTheCredentialsOfANamespacesOwner(t *testing.T) {
	testroot.Need(t)
	before := threadCredentials(t)
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	var creators sync.WaitGroup
	for range 8 {
		creators.Go(func() {
			for range 10 {
				set, err := Create(&testMappings, User|UTS)
				if err != nil {
					t.Error(err)
					return
				}
				set.Close()
			}
		})
	}
	creators.Wait()
	for c := range threadCredentials(t) {
		if !before[c] {
			t.Errorf("a thread has %q", c)
		}
	}
	if now, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || now != dumpable {
		t.Errorf("dumpable was %d, is %d: %v", dumpable, now, err)
	}
}

// threadCredentials are the credentials of all threads of this process. (A thread whose credentials
// a test has changed may still exist, parked for good: the first thread of a process never ends.)
func threadCredentials(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, tid := range readDir(t, "/proc/self/task") {
		status, err := os.ReadFile("/proc/self/task/" + tid + "/status")
		if err != nil {
			continue // the thread has ended
		}
		var all []string
		for line := range strings.Lines(string(status)) {
			if name, _, _ := strings.Cut(line, ":"); name == "Uid" || name == "Gid" || name == "CapEff" || name == "CapPrm" {
				all = append(all, strings.TrimSpace(line))
			}
		}
		found[strings.Join(all, " ")] = true
	}
	return found
}

// A process of the owner outside of the namespace has all capabilities over the held child, and the
// child has this process's memory. (It may kill the child, and Create then fails.)
func TestAHeldChildIsOutOfReachOfItsOwner(t *testing.T) {
	testroot.Need(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		child, restored, err := owner{100000, 100000}.hold(User)
		if err != nil || !restored {
			t.Error(err, restored)
			return
		}
		defer func() {
			if err := child.kill(); err != nil {
				t.Error(err)
			}
		}()
		for _, name := range []string{"mem", "maps", "environ"} {
			read := exec.Command("dd", "count=1", "of=/dev/null", fmt.Sprintf("if=/proc/%d/%s", child.pid, name))
			read.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 100000, Gid: 100000}}
			if out, err := read.CombinedOutput(); err == nil || !strings.Contains(string(out), "ermission denied") {
				t.Errorf("%s of the held child: %v: %s", name, err, out)
			}
		}
	}()
	<-done
}
