package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// runIn starts a container with that configuration in a pod of its own and returns both IDs.
func (n *node) runIn(name string, config *runtimeapi.ContainerConfig, options ...string) (pod, container string) {
	n.t.Helper()
	box, err := n.runtime.RunPodSandbox(n.ctx(), &runtimeapi.RunPodSandboxRequest{Config: n.podConfig(name, options...)})
	if err != nil {
		n.t.Fatal(err)
	}
	made, err := n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: box.PodSandboxId, Config: config})
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.runtime.StartContainer(n.ctx(), &runtimeapi.StartContainerRequest{ContainerId: made.ContainerId}); err != nil {
		n.t.Fatal(err)
	}
	return box.PodSandboxId, made.ContainerId
}

func (n *node) idle(options ...string) (container string) {
	n.t.Helper()
	_, container = n.runIn("idle", containerConfig("main", "sh", "-c", "while :; do sleep 1; done"), options...)
	return container
}

func (n *node) execURL(container string, s streamsOf, cmd ...string) string {
	n.t.Helper()
	resp, err := n.runtime.Exec(n.ctx(), &runtimeapi.ExecRequest{
		ContainerId: container, Cmd: cmd, Stdin: s.stdin, Stdout: s.stdout, Stderr: s.stderr, Tty: s.tty,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return resp.Url
}

func (n *node) attachURL(container string, s streamsOf) string {
	n.t.Helper()
	resp, err := n.runtime.Attach(n.ctx(), &runtimeapi.AttachRequest{
		ContainerId: container, Stdin: s.stdin, Stdout: s.stdout, Stderr: s.stderr, Tty: s.tty,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return resp.Url
}

// pipes and terminal are the usual streams.
var (
	pipes    = streamsOf{stdin: true, stdout: true, stderr: true}
	terminal = streamsOf{stdin: true, stdout: true, tty: true}
)

// processesOf are the living processes in a container's group. Zombies wait for another parent.
func processesOf(container string) map[int]string {
	found := map[int]string{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		group, err := os.ReadFile(filepath.Join(dir, "cgroup"))
		stat, err2 := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil || err2 != nil || !strings.Contains(string(group), container) || strings.Contains(string(stat), ") Z ") {
			continue
		}
		cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		pid, _ := strconv.Atoi(filepath.Base(dir))
		found[pid] = strings.ReplaceAll(string(cmdline), "\x00", " ")
	}
	return found
}

func anyHas(processes map[int]string, text string) bool {
	for _, cmdline := range processes {
		if strings.Contains(cmdline, text) {
			return true
		}
	}
	return false
}

func TestExecPassesStreamsHalfClosesAndTheExitCode(t *testing.T) {
	n := started(t)
	c := n.idle("userns")
	for name, dial := range dialers {
		t.Run(name, func(t *testing.T) {
			big := strings.Repeat("0123456789abcdef", 200<<10) // 3.1 MiB, more than all pipes hold
			s := dial(t, n.execURL(c, pipes, "sh", "-c", "cat; echo trouble >&2; exit 7"), pipes)
			go func() {
				_, _ = io.WriteString(s.in, big)
				_ = s.in.Close()
			}()
			if r := s.finish(t); r.out != big || r.errs != "trouble\n" || r.code != 7 || r.failure != "" {
				t.Errorf("%d bytes out, want %d; stderr %q; exit code %d (%s), want 7", len(r.out), len(big), r.errs, r.code, r.failure)
			}
			output := streamsOf{stdout: true, stderr: true}
			if r := dial(t, n.execURL(c, output, "echo", "hello"), output).finish(t); r.out != "hello\n" || r.errs != "" || r.code != 0 {
				t.Errorf("without input: %+v", r)
			}
			if r := dial(t, n.execURL(c, output, "/no/such/program"), output).finish(t); !strings.Contains(r.failure, "/no/such/program") {
				t.Errorf("a missing program: %+v", r)
			}
		})
	}
}

func TestExecWithATerminalFollowsTheClientsWindow(t *testing.T) {
	n := started(t)
	c := n.idle()
	for name, dial := range dialers {
		t.Run(name, func(t *testing.T) {
			s := dial(t, n.execURL(c, terminal, "sh"), terminal)
			for _, size := range []struct{ w, h int }{{101, 31}, {77, 55}} {
				say(t, s.resize, fmt.Sprintf(`{"Width":%d,"Height":%d}`, size.w, size.h))
				want := fmt.Sprintf("size=%d %d\r\n", size.h, size.w)
				// The size comes on another stream: ask until it has come.
				say(t, s.in, fmt.Sprintf("until [ \"$(stty size)\" = \"%d %d\" ]; do sleep .05; done; echo size=$(stty size)\n", size.h, size.w))
				await(t, s.out, want)
			}
			say(t, s.in, "exit 3\n")
			if r := s.finish(t); r.code != 3 {
				t.Errorf("%+v, want exit code 3", r)
			}
		})
	}
}

func TestAClientThatHangsUpEndsTheTerminalsShell(t *testing.T) {
	n := started(t)
	c := n.idle()
	for name, dial := range dialers {
		t.Run(name, func(t *testing.T) {
			s := dial(t, n.execURL(c, terminal, "sh", "-c", "echo here; sleep 7777"), terminal)
			await(t, s.out, "here")
			s.hangUp()
			if err := n.until("the shell's end", func() bool { return !anyHas(processesOf(c), "7777") }); err != nil {
				t.Errorf("%v: %v", err, processesOf(c))
			}
		})
	}
}

func TestExecDoesNotWaitForAChildThatKeepsItsOutput(t *testing.T) {
	n := started(t)
	c := n.idle()
	output := streamsOf{stdout: true}
	begin := time.Now()
	s := dialSPDY(t, n.execURL(c, output, "sh", "-c", "sleep 6666 & echo done"), output)
	if r := s.finish(t); r.out != "done\n" || r.code != 0 {
		t.Errorf("%+v", r)
	}
	if took := time.Since(begin); took > 15*time.Second {
		t.Errorf("it took %s", took)
	}
	if !anyHas(processesOf(c), "6666") {
		t.Error("the child was ended, which nobody asked for")
	}
}

func TestAURLIsGoodForOneConnection(t *testing.T) {
	n := started(t)
	c := n.idle()
	output := streamsOf{stdout: true}
	where := n.execURL(c, output, "true")
	dialSPDY(t, where, output).finish(t)
	for _, u := range []string{where, where[:len(where)-1], strings.Replace(where, "/exec/", "/attach/", 1)} {
		resp, err := http.Get(u)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", u, resp.Status)
		}
	}
}

func TestStreamingRequestsAreRefusedByName(t *testing.T) {
	n := started(t)
	pod, c := n.runIn("short", containerConfig("main", "true"))
	if err := n.until("its end", func() bool {
		s, err := n.containerStatus(c)
		return err == nil && s.State == runtimeapi.ContainerState_CONTAINER_EXITED
	}); err != nil {
		t.Fatal(err)
	}
	exec := func(r *runtimeapi.ExecRequest) error { _, err := n.runtime.Exec(n.ctx(), r); return err }
	for _, bad := range []struct {
		err  error
		code codes.Code
		text string
	}{
		{exec(&runtimeapi.ExecRequest{ContainerId: c, Cmd: []string{"x"}, Stdout: true}), codes.FailedPrecondition, "exited"},
		{exec(&runtimeapi.ExecRequest{ContainerId: "none", Cmd: []string{"x"}, Stdout: true}), codes.NotFound, "none"},
		{exec(&runtimeapi.ExecRequest{ContainerId: c, Cmd: []string{"x"}}), codes.InvalidArgument, "stdin"},
		{exec(&runtimeapi.ExecRequest{ContainerId: c, Cmd: []string{"x"}, Tty: true, Stderr: true}), codes.InvalidArgument, "tty"},
		{func() error {
			_, err := n.runtime.PortForward(n.ctx(), &runtimeapi.PortForwardRequest{PodSandboxId: pod, Port: []int32{70000}})
			return err
		}(), codes.InvalidArgument, "70000"},
	} {
		if codeOf(bad.err) != bad.code.String() || !strings.Contains(messageOf(bad.err), bad.text) {
			t.Errorf("%v, want %s and %q", bad.err, bad.code, bad.text)
		}
	}
}

// echoing is a container that answers each line of its standard input on both outputs.
func echoing(once bool) *runtimeapi.ContainerConfig {
	config := containerConfig("main", "sh", "-c", `while read l; do echo "out $l"; echo "err $l" >&2; done; echo over`)
	config.Stdin, config.StdinOnce = true, once
	return config
}

func TestEveryAttacherGetsAllOutputAndMayWrite(t *testing.T) {
	n := started(t)
	_, c := n.runIn("echo", echoing(false))
	first := dialSPDY(t, n.attachURL(c, pipes), pipes).reading()
	second := dialWebSocket(t, n.attachURL(c, pipes), pipes).reading()
	sayUntil(t, first.in, "a\n", first.out, "out a\n")
	sayUntil(t, second.in, "b\n", second.out, "out b\n")
	for from, text := range map[*session]string{first: "one", second: "two"} {
		say(t, from.in, text+"\n")
		for _, s := range []*session{first, second} {
			await(t, s.out, "out "+text+"\n")
			await(t, s.errs, "err "+text+"\n")
		}
	}
	first.hangUp()
	third := dialSPDY(t, n.attachURL(c, pipes), pipes).reading()
	if got := sayUntil(t, third.in, "three\n", third.out, "three\n"); !strings.HasPrefix(got, "out three\n") {
		t.Errorf("who comes late gets %q", got)
	}
	await(t, second.out, "out three\n")
	if _, err := n.runtime.StopContainer(n.ctx(), &runtimeapi.StopContainerRequest{ContainerId: c}); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*session{second, third} {
		if r := s.finish(t); r.failure != "" {
			t.Errorf("at the container's end: %+v", r)
		}
	}
}

func TestStdinOnceEndsWithItsFirstClient(t *testing.T) {
	n := started(t)
	for name, leave := range map[string]func(*session){
		"half-close": func(s *session) { _ = s.in.Close() },
		"hang-up":    func(s *session) { s.hangUp() },
	} {
		t.Run(name, func(t *testing.T) {
			config := echoing(true)
			_, c := n.runIn(name, config)
			first := dialSPDY(t, n.attachURL(c, pipes), pipes).reading()
			sayUntil(t, first.in, "first\n", first.out, "out first\n")
			second := dialSPDY(t, n.attachURL(c, pipes), pipes).reading()
			say(t, second.in, "ignored\n")
			if got := sayUntil(t, first.in, "mine\n", second.out, "mine\n"); strings.Contains(got, "ignored") {
				t.Errorf("the second client got %q", got)
			}
			leave(first)
			if r := second.finish(t); !strings.Contains(r.out, "over\n") || r.failure != "" {
				t.Errorf("the container did not see the end of its input: %+v", r)
			}
		})
	}
}

func TestAttachToATerminalSharesIt(t *testing.T) {
	n := started(t)
	config := containerConfig("main", "sh")
	config.Stdin, config.Tty = true, true
	_, c := n.runIn("tty", config)
	first := dialSPDY(t, n.attachURL(c, terminal), terminal).reading()
	second := dialWebSocket(t, n.attachURL(c, terminal), terminal).reading()
	say(t, first.resize, `{"Width":91,"Height":41}`)
	say(t, first.in, "until [ \"$(stty size)\" = '41 91' ]; do sleep .05; done\n")
	sayUntil(t, first.in, "echo a''b\n", second.out, "ab\r\n")
	say(t, second.in, "exit 0\n")
	for _, s := range []*session{first, second} {
		if r := s.finish(t); r.failure != "" {
			t.Errorf("%+v", r)
		}
	}
}

func TestASlowAttacherIsCutOffAndHoldsUpNobody(t *testing.T) {
	n := started(t)
	config := containerConfig("main", "sh", "-c", "read x; for i in $(seq 40); do yes 0123456789abcdef0123456789abcde | head -c 1048576; sleep .03; done")
	config.Stdin = true
	_, c := n.runIn("loud", config)
	slow := dialSPDY(t, n.attachURL(c, pipes), pipes)
	fast := dialSPDY(t, n.attachURL(c, pipes), pipes).reading()
	say(t, fast.in, "go\n")
	if r := fast.finish(t); len(r.out) != 40<<20 || r.failure != "" {
		t.Errorf("the fast client got %d bytes, want %d (%s)", len(r.out), 40<<20, r.failure)
	}
	if s, err := n.containerStatus(c); err != nil || s.State != runtimeapi.ContainerState_CONTAINER_EXITED || s.ExitCode != 0 {
		t.Errorf("the container: %v %v", s, err)
	}
	if r := slow.finish(t); len(r.out) >= 40<<20 || !strings.Contains(r.failure, "too slowly") {
		t.Errorf("the slow client got %d bytes and %q", len(r.out), r.failure)
	}
}

func TestAttachedSessionsOutliveTheSupervisor(t *testing.T) {
	n := started(t)
	_, c := n.runIn("echo", echoing(true))
	s := dialSPDY(t, n.attachURL(c, pipes), pipes).reading()
	say(t, s.in, "before\n")
	await(t, s.out, "out before\n")
	killSupervisor(t, n)
	// Without a supervisor, output goes only to the log.
	sayUntil(t, s.in, "after\n", s.out, "out after\n")
	_ = s.in.Close()
	if r := s.finish(t); !strings.HasSuffix(r.out, "over\n") || r.failure != "" {
		t.Errorf("%+v", r)
	}
}

// killSupervisor kills pinder's inner process of this node.
func killSupervisor(t *testing.T, n *node) {
	t.Helper()
	for _, line := range n.processes() {
		var pid int
		if strings.Contains(line, "pinder supervise") {
			if _, err := fmt.Sscanf(line, "process %d:", &pid); err == nil {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				return
			}
		}
	}
	t.Fatalf("no supervisor among %q", n.processes())
}

// forward opens one connection to a port.
func forward(t *testing.T, conn httpstream.Connection, port, request int) (data, errs httpstream.Stream) {
	t.Helper()
	h := http.Header{}
	h.Set("port", strconv.Itoa(port))
	h.Set("requestID", strconv.Itoa(request))
	var streams [2]httpstream.Stream
	for i, kind := range []string{"error", "data"} {
		h := h.Clone()
		h.Set("streamType", kind)
		s, err := conn.CreateStream(h)
		if err != nil {
			t.Fatal(err)
		}
		streams[i] = s
	}
	return streams[1], streams[0]
}

func TestPortForwardReachesThePodsLoopback(t *testing.T) {
	n := started(t)
	for i, options := range [][]string{{}, {"userns"}, {"host-network"}} {
		port := 18080 + i
		config := containerConfig("main", "nc", "-ll", "-p", strconv.Itoa(port), "-e", "cat")
		pod, _ := n.runIn(fmt.Sprintf("server%d", i), config, options...)
		resp, err := n.runtime.PortForward(n.ctx(), &runtimeapi.PortForwardRequest{PodSandboxId: pod})
		if err != nil {
			t.Fatal(err)
		}
		conn := connectSPDY(t, resp.Url, "portforward.k8s.io")
		checkForward(t, n, conn, port)
		resp, err = n.runtime.PortForward(n.ctx(), &runtimeapi.PortForwardRequest{PodSandboxId: pod})
		if err != nil {
			t.Fatal(err)
		}
		tunnel, err := spdy.NewClientConnection(dialWS(t, resp.Url, "SPDY/3.1+portforward.k8s.io"))
		if err != nil {
			t.Fatal(err)
		}
		checkForward(t, n, tunnel, port)
		tunnel.Close()
	}
}

// checkForward sends much, ends its half, and reads everything back. Then it tries a port without a
// server.
func checkForward(t *testing.T, n *node, conn httpstream.Connection, port int) {
	t.Helper()
	big := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	var got []byte
	number := 0
	err := n.until("an answer", func() bool { // the server may not listen yet
		number++
		data, errs := forward(t, conn, port, number)
		go func() {
			_, _ = data.Write(big)
			_ = data.Close()
		}()
		got, _ = io.ReadAll(data)
		failure, _ := io.ReadAll(errs)
		return len(failure) == 0
	})
	if err != nil || !bytes.Equal(got, big) {
		t.Errorf("port %d: %v; %d bytes came back, want %d", port, err, len(got), len(big))
	}
	_, errs := forward(t, conn, port+1000, number+1)
	failure, _ := io.ReadAll(errs)
	if !strings.Contains(string(failure), strconv.Itoa(port+1000)) || !strings.Contains(string(failure), "refused") {
		t.Errorf("a port where nobody listens: %q", failure)
	}
}

func TestExecSyncEndsAllThatACommandStartedAtItsTimeout(t *testing.T) {
	n := started(t)
	c := n.idle("userns")
	for _, cmd := range []string{
		"sleep 5555 & sleep 5555",
		"setsid sh -c 'trap : TERM HUP INT; (sleep 5555 &) ; sleep 5555' & exec sleep 5555",
	} {
		_, err := n.runtime.ExecSync(n.ctx(), &runtimeapi.ExecSyncRequest{ContainerId: c, Cmd: []string{"sh", "-c", cmd}, Timeout: 1})
		if codeOf(err) != codes.DeadlineExceeded.String() {
			t.Errorf("%v, want DeadlineExceeded", err)
		}
		if left := processesOf(c); anyHas(left, "5555") {
			t.Errorf("%s: left: %v", cmd, left)
		}
		if err := n.until("the group's end", func() bool { return len(execGroups(c)) == 0 }); err != nil {
			t.Errorf("%s: left: %v", cmd, execGroups(c))
		}
	}
	resp, err := n.runtime.ExecSync(n.ctx(), &runtimeapi.ExecSyncRequest{ContainerId: c, Cmd: []string{"sh", "-c", "exit 4"}, Timeout: 10})
	if err != nil || resp.ExitCode != 4 {
		t.Errorf("%v %v", resp, err)
	}
	if err := n.until("the group's end", func() bool { return len(execGroups(c)) == 0 }); err != nil {
		t.Errorf("left: %v", execGroups(c))
	}
}

// execGroups are the groups of execs below a container's.
func execGroups(container string) []string {
	var found []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && d.IsDir() && strings.Contains(path, container+"/") {
			found = append(found, path)
		}
		return nil
	})
	return found
}

func TestExecSyncCapsEachOutputWithoutAnError(t *testing.T) {
	n := started(t)
	c := n.idle()
	resp, err := n.runtime.ExecSync(n.ctx(), &runtimeapi.ExecSyncRequest{
		ContainerId: c, Cmd: []string{"sh", "-c", "head -c 20000000 /dev/zero; head -c 20000000 /dev/zero >&2; exit 6"},
	}, grpc.MaxCallRecvMsgSize(64<<20))
	if err != nil || len(resp.GetStdout()) != 16<<20 || len(resp.GetStderr()) != 16<<20 || resp.GetExitCode() != 6 {
		t.Errorf("%v; %d and %d bytes, want 16 MiB of each; exit code %d, want 6", err, len(resp.GetStdout()), len(resp.GetStderr()), resp.GetExitCode())
	}
}
