package pair

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/client"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

func TestContainerRunsLogsAndExits(t *testing.T) {
	n := newNode(t)
	c := n.create("a", "echo out; echo err >&2; printf unfinished; exit 7")
	if c.PID <= 1 || c.Start == 0 || !strings.HasSuffix(c.Cgroup, n.cgroup("a")) {
		t.Fatalf("created: %+v", c)
	}
	if n.logSize("a") != 0 {
		t.Fatal("output before start")
	}
	n.start("a")
	e := n.exit("a")
	if e.Code != 7 || e.Signal != 0 || e.OOMKilled || e.Unknown || time.Since(e.Time()) > time.Minute {
		t.Fatalf("exit: %+v", e)
	}
	out, stderr := n.logged("a")
	if out != "out\nunfinished" || stderr != "err\n" {
		t.Fatalf("logged %q, %q", out, stderr)
	}
	list, err := n.client.Containers(n.ctx())
	if err != nil || len(list) != 1 || list[0].Running() || list[0].Exit == nil || *list[0].Exit != e {
		t.Fatalf("containers: %+v, %v", list, err)
	}
}

func TestSignalEndsAContainerAndIsNotFoundAfterwards(t *testing.T) {
	n := newNode(t)
	n.run("a", "sleep 1000", withUserns)
	if err := n.client.Signal(n.ctx(), "a", unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := n.exit("a"); e.Code != 137 || e.Signal != 9 || e.OOMKilled {
		t.Fatalf("exit: %+v", e)
	}
	if err := n.client.Signal(n.ctx(), "a", unix.SIGKILL); !errdefs.IsNotFound(err) {
		t.Fatalf("signal after the end: %v", err)
	}
	if err := n.client.Signal(n.ctx(), "nobody", unix.SIGKILL); !errdefs.IsNotFound(err) {
		t.Fatalf("signal to nobody: %v", err)
	}
}

func TestKillAllEndsContainersWithoutPIDNamespace(t *testing.T) {
	n := newNode(t)
	c := n.run("a", "sleep 1001 & sleep 1002 & echo ready; wait", withHostPID)
	until(t, "the container is ready", func() bool { return n.logSize("a") > 0 })
	dir := "/sys/fs/cgroup/memory" + c.Cgroup
	if _, err := os.Stat(dir); err != nil {
		dir = "/sys/fs/cgroup" + c.Cgroup
	}
	if err := n.client.KillAll(n.ctx(), "a"); err != nil {
		t.Fatal(err)
	}
	if e := n.exit("a"); e.Signal != 9 {
		t.Fatalf("exit: %+v", e)
	}
	until(t, "the cgroup is empty", func() bool {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		return err != nil || len(b) == 0
	})
}

func TestDeleteIsIdempotentAndKills(t *testing.T) {
	n := newNode(t)
	n.run("a", "sleep 1000")
	for range 2 {
		if err := n.client.Delete(n.ctx(), wire.Delete{ID: "a", Runtime: wire.Runtime{Binary: runcBinary, Root: n.dir + "/runc"}}); err != nil {
			t.Fatal(err)
		}
	}
	if e := n.exit("a"); e.Signal != 9 {
		t.Fatalf("exit: %+v", e)
	}
}

func TestCreateAndStartMayBeRepeated(t *testing.T) {
	n := newNode(t)
	r := n.request("a", "echo once")
	first, err := n.client.Create(n.ctx(), r)
	if err != nil {
		t.Fatal(err)
	}
	second, err := n.client.Create(n.ctx(), r)
	if err != nil || first != second {
		t.Fatalf("second create: %+v, %v", second, err)
	}
	n.start("a")
	n.exit("a")
	n.start("a")
	if out, _ := n.logged("a"); out != "once\n" {
		t.Fatalf("logged %q", out)
	}
	r.Bundle += "other"
	if _, err := n.client.Create(n.ctx(), r); !errdefs.IsAlreadyExists(err) {
		t.Fatalf("create with another bundle: %v", err)
	}
}

func TestManyContainersAtOnce(t *testing.T) {
	n := newNode(t)
	const count = 50
	errs := make(chan error, count)
	for i := range count {
		r := n.request(fmt.Sprintf("c%d", i), fmt.Sprintf("echo hello %d; exit %d", i, i))
		go func() {
			_, err := n.client.Create(n.ctx(), r)
			if err == nil {
				err = n.client.Start(n.ctx(), r.ID)
			}
			errs <- err
		}()
	}
	for range count {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	for i := range count {
		id := fmt.Sprintf("c%d", i)
		if e := n.exit(id); e.Code != i {
			t.Errorf("exit of %s: %+v", id, e)
		}
		if out, _ := n.logged(id); out != fmt.Sprintf("hello %d\n", i) {
			t.Errorf("%s logged %q", id, out)
		}
	}
}

func TestContainerThatEndsAtOnceKeepsItsExitCode(t *testing.T) {
	n := newNode(t)
	for i := range 20 {
		id := fmt.Sprintf("c%d", i)
		n.run(id, fmt.Sprintf("exit %d", i))
		if e := n.exit(id); e.Code != i || e.Unknown {
			t.Fatalf("exit of %s: %+v", id, e)
		}
	}
}

func TestFailuresOfTheRuntimeNameStepContainerAndCause(t *testing.T) {
	n := newNode(t)
	slow := filepath.Join(n.dir, "slow")
	if err := os.WriteFile(slow, []byte("#!/bin/sh\ncase \" $* \" in *\" create \"*) sleep 1000;; esac\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		tweak tweak
		want  []string
		class error
	}{
		"missing": {
			func(_ map[string]any, r *wire.Create) { r.Runtime.Binary = "/nowhere/runc" },
			[]string{"runtime create: container x", "/nowhere/runc", "no such file"},
			errdefs.ErrInternal,
		},
		"no command": {
			func(s map[string]any, _ *wire.Create) {
				s["process"].(map[string]any)["args"] = []string{"/bin/nope"}
			},
			[]string{"runtime create: container x: runc: ", "/bin/nope", "no such file"},
			errdefs.ErrInternal,
		},
		"no rootfs": {
			func(s map[string]any, _ *wire.Create) { s["root"] = map[string]any{"path": "/nowhere"} },
			[]string{"runtime create: container x: runc: ", "/nowhere"},
			errdefs.ErrInternal,
		},
		"hanging": {
			func(_ map[string]any, r *wire.Create) { r.Runtime.Binary, r.Runtime.TimeoutMillis = slow, 300 },
			[]string{"runtime create: container x: killed: not finished after 0.3 s"},
			context.DeadlineExceeded,
		},
		"relative log path": {
			func(_ map[string]any, r *wire.Create) { r.LogPath = "log" },
			[]string{"container x: log path \"log\" is not absolute"},
			errdefs.ErrInvalidArgument,
		},
		"no log directory": {
			func(_ map[string]any, r *wire.Create) { r.LogPath = "/nowhere/log" },
			[]string{"create: container x: open log /nowhere/log: no such file"},
			errdefs.ErrInternal,
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := n.client.Create(n.ctx(), n.request("x", "true", tc.tweak))
			if !errors.Is(err, tc.class) {
				t.Fatalf("class of %v", err)
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q lacks %q", err, w)
				}
			}
			if list, err := n.client.Containers(n.ctx()); err != nil || len(list) != 0 {
				t.Errorf("left: %+v, %v", list, err)
			}
		})
	}
}

func TestHungRuntimeOfOneContainerBlocksNoOther(t *testing.T) {
	n := newNode(t)
	slow := filepath.Join(n.dir, "slow")
	if err := os.WriteFile(slow, []byte("#!/bin/sh\ncase \" $* \" in *\" create \"*) sleep 1000;; esac\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	r := n.request("hung", "true")
	r.Runtime.Binary, r.Runtime.TimeoutMillis = slow, 3000
	hung := make(chan error, 1)
	go func() {
		_, err := n.client.Create(n.ctx(), r)
		hung <- err
	}()
	n.run("a", "exit 3")
	if e := n.exit("a"); e.Code != 3 {
		t.Fatalf("exit: %+v", e)
	}
	select {
	case err := <-hung:
		t.Fatalf("hung create ended first: %v", err)
	default:
	}
	if err := <-hung; !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("hung create: %v", err)
	}
}

func TestOOMKillIsReported(t *testing.T) {
	n := newNode(t)
	n.run("a", "x=0123456789; while true; do x=$x$x; done", withMemory(16<<20))
	if e := n.exit("a"); !e.OOMKilled || e.Signal != 9 {
		t.Fatalf("exit: %+v", e)
	}
	n.run("b", "true", withMemory(16<<20))
	if e := n.exit("b"); e.OOMKilled {
		t.Fatalf("exit: %+v", e)
	}
}

func TestExecPassesStreamsAndExitCode(t *testing.T) {
	n := newNode(t)
	n.run("a", "sleep 1000")
	e, err := n.client.Exec(n.ctx(), wire.Exec{
		ID: "a", ExecID: "e1", Stdin: true, Process: mustJSON(t, process("/bin/sh", "-c", "echo err >&2; cat; exit 5")),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Stdin.WriteString("through\n"); err != nil {
		t.Fatal(err)
	}
	_ = e.Stdin.Close()
	if out, stderr := readAll(t, e.Stdout), readAll(t, e.Stderr); out != "through\n" || stderr != "err\n" {
		t.Fatalf("got %q, %q", out, stderr)
	}
	x, err := e.Wait(n.ctx())
	if err != nil || x.Code != 5 || x.ExecID != "e1" {
		t.Fatalf("exit: %+v, %v", x, err)
	}
	_, err = n.client.Exec(n.ctx(), wire.Exec{ID: "a", ExecID: "e2", Process: mustJSON(t, process("/bin/nope"))})
	if err == nil || !strings.Contains(err.Error(), "runtime exec: exec e2 of container a: runc: ") || !strings.Contains(err.Error(), "/bin/nope") {
		t.Fatalf("exec of a missing command: %v", err)
	}
	if _, err := n.client.Exec(n.ctx(), wire.Exec{ID: "nobody", ExecID: "e"}); !errdefs.IsNotFound(err) {
		t.Fatalf("exec in nobody: %v", err)
	}
}

func TestExecIsKilledAndEndsWithItsContainer(t *testing.T) {
	n := newNode(t)
	n.run("a", "sleep 1000")
	start := func(id string) *client.Execution {
		e, err := n.client.Exec(n.ctx(), wire.Exec{ID: "a", ExecID: id, Process: mustJSON(t, process("/bin/sleep", "1000"))})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	e1, e2 := start("e1"), start("e2")
	if err := e1.Kill(n.ctx()); err != nil {
		t.Fatal(err)
	}
	if x, err := e1.Wait(n.ctx()); err != nil || x.Signal != 9 {
		t.Fatalf("exit: %+v, %v", x, err)
	}
	if err := n.client.Delete(n.ctx(), wire.Delete{ID: "a"}); err != nil {
		t.Fatal(err)
	}
	if x, err := e2.Wait(n.ctx()); err != nil || x.Signal != 9 {
		t.Fatalf("exit: %+v, %v", x, err)
	}
}

func TestTerminalOfContainerAndExec(t *testing.T) {
	n := newNode(t)
	n.create("a", "tty; stty size; sleep 1000", withTTY)
	if err := n.client.Resize(n.ctx(), "a", "", 132, 43); err != nil {
		t.Fatal(err)
	}
	n.start("a")
	until(t, "the container wrote", func() bool { out, _ := n.logged("a"); return strings.Count(out, "\n") >= 2 })
	if out, _ := n.logged("a"); out != "/dev/pts/0\r\n43 132\r\n" {
		t.Fatalf("logged %q", out)
	}
	p := process("/bin/sh", "-c", "read x; stty size; exit 4")
	p["terminal"] = true
	e, err := n.client.Exec(n.ctx(), wire.Exec{ID: "a", ExecID: "e", TTY: true, Process: mustJSON(t, p)})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.client.Resize(n.ctx(), "a", "e", 99, 33); err != nil {
		t.Fatal(err)
	}
	if _, err := e.TTY.WriteString("go\n"); err != nil {
		t.Fatal(err)
	}
	if out := readAll(t, e.TTY); !strings.Contains(out, "33 99") {
		t.Fatalf("terminal says %q", out)
	}
	if x, err := e.Wait(n.ctx()); err != nil || x.Code != 4 {
		t.Fatalf("exit: %+v, %v", x, err)
	}
}
