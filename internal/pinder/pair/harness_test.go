package pair

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/client"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/testroot"
)

// These tests run the real pinder with the real runc as root. PINFOLD_RUNC names
// runc; without it, it is looked for in $PATH and <repo>/build/tools.

var (
	pinderBinary string
	runcBinary   string
	rootfs       string
	cgroupParent = fmt.Sprintf("/pinder-test-%d", os.Getpid())
)

func TestMain(m *testing.M) {
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	if why := testroot.Missing(); why != "" {
		fmt.Println("no test of this package was run:", why)
		return 0
	}
	dir, err := os.MkdirTemp("", "pinder")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	_ = os.Chmod(dir, 0o755) // roots of user namespaces pass through it
	if err := prepare(dir); err != nil {
		fmt.Println("cannot prepare the tests:", err)
		return 1
	}
	defer removeCgroups()
	return m.Run()
}

func prepare(dir string) error {
	pinderBinary = filepath.Join(dir, "pinder")
	if given := os.Getenv("PINFOLD_PINDER"); given != "" {
		pinderBinary = given // as for tests of one release against another
		return prepareRuntime(dir)
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", pinderBinary, "../../../cmd/pinder")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build pinder: %w\n%s", err, out)
	}
	return prepareRuntime(dir)
}

func prepareRuntime(dir string) error {
	if runcBinary = os.Getenv("PINFOLD_RUNC"); runcBinary == "" {
		var err error
		if runcBinary, err = exec.LookPath("runc"); err != nil {
			runcBinary, _ = filepath.Abs("../../../build/tools/runc")
		}
	}
	if _, err := os.Stat(runcBinary); err != nil {
		return fmt.Errorf("runc: %w (set PINFOLD_RUNC)", err)
	}
	return makeRootfs(filepath.Join(dir, "rootfs"))
}

func makeRootfs(dir string) error {
	rootfs = dir
	for _, d := range []string{"bin", "proc", "dev", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	path, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("the test's root file system is made of busybox (static): %w", err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), b, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"sh", "echo", "yes", "head", "sleep", "cat", "seq", "dd", "tail", "tty", "stty", "true"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			return err
		}
	}
	return nil
}

func removeCgroups() {
	dirs, _ := filepath.Glob("/sys/fs/cgroup/*" + cgroupParent)
	dirs = append(dirs, "/sys/fs/cgroup"+cgroupParent)
	for _, d := range dirs {
		sub, _ := filepath.Glob(d + "/*")
		for _, s := range sub {
			_ = unix.Rmdir(s)
		}
		_ = unix.Rmdir(d)
	}
}

// node is one state directory with its pinder and client.
type node struct {
	t      *testing.T
	dir    string
	client *client.Client

	mu    sync.Mutex
	exits map[string]wire.Exit
	event chan struct{}
}

func newNode(t *testing.T) *node {
	t.Helper()
	dir, err := os.MkdirTemp("", "pn") // short: socket paths are limited
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, dir: dir, exits: map[string]wire.Exit{}, event: make(chan struct{})}
	t.Cleanup(n.cleanup)
	n.connect()
	return n
}

func (n *node) state() string { return filepath.Join(n.dir, "s") }

func (n *node) connect() {
	n.t.Helper()
	var err error
	n.client, err = client.Connect(n.ctx(), client.Options{
		Binary: pinderBinary, State: n.state(), OnExit: n.onExit,
		Log: slog.New(slog.NewTextHandler(testWriter{n.t}, nil)), Silence: 5 * time.Second,
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Log(strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

func (n *node) onExit(e wire.Exit) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.exits[e.ID] = e
	close(n.event)
	n.event = make(chan struct{})
}

func (n *node) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	n.t.Cleanup(cancel)
	return ctx
}

// cleanup deletes every container, ends pinder, and fails the test if anything
// is left.
func (n *node) cleanup() {
	defer func() { _ = os.RemoveAll(n.dir) }()
	if n.t.Failed() {
		b, _ := os.ReadFile(filepath.Join(n.state(), "pinder.log"))
		n.t.Logf("pinder.log:\n%s", b)
	}
	reaper, inner, err := n.client.Processes(n.ctx())
	if err != nil {
		n.t.Error(err)
		return
	}
	list, err := n.client.Containers(n.ctx())
	if err != nil {
		n.t.Error(err)
	}
	for i := range list {
		if err := n.client.Delete(n.ctx(), wire.Delete{ID: list[i].ID}); err != nil {
			n.t.Error(err)
		}
	}
	if err := n.client.Shutdown(n.ctx()); err != nil {
		n.t.Errorf("shutdown: %v", err)
	}
	_ = n.client.Close()
	for _, pid := range []int{inner, reaper} {
		if !waitGone(pid, 5*time.Second) {
			n.t.Errorf("pinder process %d is left", pid)
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	if left, _ := filepath.Glob(n.dir + "/runc/*"); len(left) > 0 {
		n.t.Errorf("left in the runtime's root: %v", left)
	}
	if left, _ := filepath.Glob(n.state() + "/calls/*"); len(left) > 0 {
		n.t.Errorf("left in calls: %v", left)
	}
}

// waitGone waits for the end of a process that is not our child.
func waitGone(pid int, limit time.Duration) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return true
	}
	defer func() { _ = unix.Close(fd) }()
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for deadline := time.Now().Add(limit); ; {
		got, err := unix.Poll(p, int(time.Until(deadline).Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return err == nil && got > 0
	}
}

// cgroup is a path that no other test uses.
func (n *node) cgroup(id string) string {
	return cgroupParent + "/" + filepath.Base(n.dir) + "-" + id
}

func (n *node) create(id, script string, tweaks ...tweak) wire.Created {
	n.t.Helper()
	c, err := n.client.Create(n.ctx(), n.request(id, script, tweaks...))
	if err != nil {
		n.t.Fatal(err)
	}
	return c
}

func (n *node) start(id string) {
	n.t.Helper()
	if err := n.client.Start(n.ctx(), id); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) run(id, script string, tweaks ...tweak) wire.Created {
	n.t.Helper()
	c := n.create(id, script, tweaks...)
	n.start(id)
	return c
}

// exit waits until the client was told of a container's exit, and checks that
// the record says the same.
func (n *node) exit(id string) wire.Exit {
	n.t.Helper()
	deadline := time.After(90 * time.Second)
	for {
		n.mu.Lock()
		e, ok := n.exits[id]
		event := n.event
		n.mu.Unlock()
		if ok {
			got, found, err := client.ReadExit(filepath.Join(n.dir, id+".exit"))
			if err != nil || !found || got != e {
				n.t.Fatalf("exit record of %s: %+v, %v, %v; event: %+v", id, got, found, err, e)
			}
			return e
		}
		select {
		case <-event:
		case <-deadline:
			n.t.Fatalf("no exit of %s", id)
		}
	}
}

// logged returns a container's output as a CRI log reader sees it, one string
// for each stream, and fails on any malformed record.
func (n *node) logged(id string) (stdout, stderr string) {
	n.t.Helper()
	b, err := os.ReadFile(filepath.Join(n.dir, id+".log"))
	if err != nil {
		n.t.Fatal(err)
	}
	return parseLog(n.t, b)
}

func parseLog(t *testing.T, b []byte) (stdout, stderr string) {
	t.Helper()
	var out [2]strings.Builder
	for line := range bytes.Lines(b) {
		f := bytes.SplitN(bytes.TrimSuffix(line, []byte("\n")), []byte(" "), 4)
		if len(f) != 4 || !bytes.HasSuffix(line, []byte("\n")) {
			t.Fatalf("record %.100q", line)
		}
		if _, err := time.Parse(time.RFC3339Nano, string(f[0])); err != nil {
			t.Fatal(err)
		}
		i := map[string]int{"stdout": 0, "stderr": 1}[string(f[1])]
		out[i].Write(f[3])
		switch string(f[2]) {
		case "F":
			out[i].WriteByte('\n')
		case "P":
			if len(f[3]) > 16<<10 {
				t.Fatalf("piece of %d bytes", len(f[3]))
			}
		default:
			t.Fatalf("record %.100q", line)
		}
	}
	return out[0].String(), out[1].String()
}

// checkNumbers checks that lines are first, first+1, … and returns how many.
func checkNumbers(t *testing.T, text string) int {
	t.Helper()
	i := 0
	for line := range strings.Lines(text) {
		i++
		if want := strconv.Itoa(i) + "\n"; line != want {
			t.Fatalf("line %d is %.60q: lines were lost or doubled", i, line)
		}
	}
	return i
}

// until polls: for facts of which the kernel tells nobody.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !f(); {
		if time.Now().After(deadline) {
			t.Fatalf("timeout waiting until %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (n *node) logSize(id string) int64 {
	st, err := os.Stat(filepath.Join(n.dir, id+".log"))
	if err != nil {
		return 0
	}
	return st.Size()
}

func (n *node) pids() (reaper, inner int) {
	n.t.Helper()
	r, i, err := n.client.Processes(n.ctx())
	if err != nil {
		n.t.Fatal(err)
	}
	return r, i
}

func (n *node) kill(pid int) {
	n.t.Helper()
	n.signal(pid, unix.SIGKILL)
}

// stop halts a process; it can still be killed.
func (n *node) stop(pid int) {
	n.t.Helper()
	n.signal(pid, unix.SIGSTOP)
}

func (n *node) signal(pid int, s unix.Signal) {
	n.t.Helper()
	if err := unix.Kill(pid, s); err != nil {
		n.t.Fatal(err)
	}
}

func readAll(t *testing.T, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil && !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	return string(b)
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
