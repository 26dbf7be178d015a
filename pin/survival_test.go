package pin

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/testroot"
)

// roleCreateAndPin pins a network namespace, prints its user namespace, and waits to be killed.
func roleCreateAndPin(args []string) error {
	set, err := Create(&testMappings, all)
	if err != nil {
		return err
	}
	if err := set.Net.Pin(args[0]); err != nil {
		return err
	}
	fmt.Println(set.User, set.Net)
	time.Sleep(time.Hour) // the Go runtime would report a bare select as a deadlock
	return nil
}

// roleCreateForever makes namespaces until it is killed.
func roleCreateForever([]string) error {
	failed := make(chan error)
	for range 4 {
		go func() {
			for {
				set, err := Create(&testMappings, all)
				if err != nil {
					failed <- err
					return
				}
				set.Close()
			}
		}()
	}
	fmt.Println("started")
	return <-failed
}

func TestPinnedPairSurvivesTheDeathOfItsMaker(t *testing.T) {
	testroot.Need(t)
	path := pinPath(t)
	maker, made := startRole(t, "create-and-pin", path)
	maker.Process.Kill()
	maker.Wait()
	net := mustOpen(t, path)
	owner := mustOwner(t, net)
	if found := owner.String() + " " + net.String(); found != made {
		t.Errorf("found %s, want %s", found, made)
	}
	// The owner still has its maps and its rights over the network.
	ownerPath := pinPath(t)
	if err := owner.Pin(ownerPath); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("nsenter", "--user="+ownerPath, "--net="+path,
		"sh", "-c", "cat /proc/self/uid_map; echo 1 > /proc/sys/net/ipv4/ip_forward && echo changed").CombinedOutput()
	if got := strings.Join(strings.Fields(string(out)), " "); err != nil || got != "0 100000 65536 changed" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestNoChildOutlivesAKilledCaller kills a process many times while it is inside Create. Orphans
// become children of this process, so it knows of each of them and of its end.
func TestNoChildOutlivesAKilledCaller(t *testing.T) {
	testroot.Need(t)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) //nolint:errcheck // it succeeded above
	const kills = 60
	orphans := 0
	for range kills {
		maker, _ := startRole(t, "create-forever")
		time.Sleep(rand.N(15 * time.Millisecond)) // any moment will do
		maker.Process.Kill()
		maker.Wait()
		orphans += reapOrphans(t)
	}
	if left := others(t); len(left) != 0 {
		t.Errorf("still running: %v", left)
	}
	t.Logf("%d kills orphaned %d held children, and all of them died", kills, orphans)
	if orphans == 0 {
		t.Error("no kill hit a Create; the test has shown nothing")
	}
}

// reapOrphans waits until this process has no child and returns how many there
// were.
func reapOrphans(t *testing.T) int {
	t.Helper()
	orphans := 0
	for deadline := time.Now().Add(10 * time.Second); ; {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG|unix.WALL, nil)
		switch {
		case errors.Is(err, unix.ECHILD):
			return orphans
		case err != nil:
			t.Fatal(err)
		case pid > 0:
			orphans++
			continue
		}
		if time.Now().After(deadline) {
			t.Fatalf("children still running 10 s after their parent was killed: %v", children(t))
		}
		time.Sleep(time.Millisecond)
	}
}

// others lists the other processes that run this test binary.
func others(t *testing.T) []string {
	t.Helper()
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	var pids []string
	for _, link := range links {
		exe, err := os.Readlink(link)
		pid := filepath.Base(filepath.Dir(link))
		if err == nil && exe == self && pid != strconv.Itoa(os.Getpid()) {
			pids = append(pids, pid)
		}
	}
	return pids
}
