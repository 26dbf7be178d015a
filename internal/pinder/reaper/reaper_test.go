package reaper

import (
	"encoding/json"
	"os/exec"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
	"github.com/pinfold-run/pinfold/internal/pinder/link"
)

// serving is a reaper without a supervisor, and what a supervisor asks it with.
func serving(t *testing.T) (r *reaper, ask *link.Reaper, items <-chan string) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	r = &reaper{dir: t.TempDir(), store: map[string]*kept{}}
	if r.link, err = link.NewConn(pair[0]); err != nil {
		t.Fatal(err)
	}
	if ask, err = link.NewReaper(pair[1]); err != nil {
		t.Fatal(err)
	}
	came := make(chan string, 8)
	go r.serve()
	go ask.Serve(func() {}, func(int) {}, func(key string, kinds []string, fds []int) {
		descriptor.CloseAll(fds)
		if len(kinds) == len(fds) {
			came <- key
		}
	})
	t.Cleanup(r.link.Close)
	return r, ask, came
}

func open(t *testing.T) int {
	t.Helper()
	fd, err := unix.Open("/proc/self/status", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func TestWhatIsKeptComesBackUntilItIsDropped(t *testing.T) {
	_, ask, items := serving(t)
	fd := open(t)
	for _, key := range []string{"c/a", "c/b", "c/b"} { // the second b replaces the first
		if err := ask.Keep(key, []string{"state", "log"}, []int{fd, fd}); err != nil {
			t.Fatal(err)
		}
	}
	if err := ask.Recall(); err != nil {
		t.Fatal(err)
	}
	got := []string{<-items, <-items}
	if slices.Sort(got); !slices.Equal(got, []string{"c/a", "c/b"}) {
		t.Errorf("%q", got)
	}
	if err := ask.Quit(); err == nil {
		t.Error("it ends although it holds something")
	}
	for _, key := range []string{"c/a", "c/b", "c/never"} {
		if err := ask.Drop(key); err != nil {
			t.Fatal(err)
		}
	}
	if err := ask.Quit(); err != nil {
		t.Error(err)
	}
}

func TestAChildOfTheReapersIsPeekedAtAndThenReaped(t *testing.T) {
	_, ask, _ := serving(t)
	cmd := exec.Command("/bin/sh", "-c", "exit 9")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid, want := cmd.Process.Pid, proc.Exit{Code: proc.CodeExited, Status: 9}
	for {
		got, exit, err := ask.Peek(pid)
		if err != nil {
			t.Fatal(err)
		}
		if got == pid {
			if exit != want {
				t.Errorf("%+v", exit)
			}
			break
		}
	}
	if err := ask.Reap(pid); err != nil {
		t.Error(err)
	}
	if _, _, err := ask.Peek(pid); err == nil {
		t.Error("it is there after it was reaped")
	}
}

// A reaper of another release reads the table.
func TestTheTableOfAHandOver(t *testing.T) {
	b, err := json.Marshal(&table{Listen: 4, Lock: 5, Link: -1, Objects: []Object{{Key: "c/a", Kinds: "state,log", FDs: []int{7, 8}}}})
	want := `{"listen":4,"lock":5,"link":-1,"objects":[{"key":"c/a","kinds":"state,log","fds":[7,8]}]}`
	if err != nil || string(b) != want {
		t.Fatalf("%s, %v", b, err)
	}
}

func TestASecondPinderOfADirectoryIsRefused(t *testing.T) {
	dir := t.TempDir()
	first, err := takeLock(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(first)
	if err := Run(dir); err == nil {
		t.Fatal("it runs")
	}
}
