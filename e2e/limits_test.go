package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// memoryBound is the limit of the daemon's memory in docs/limits.md, in MiB.
const memoryBound = 384

// peakMemory resets the highest memory use of the daemon. The result returns the highest since
// then, in MiB.
func (n *node) peakMemory() func() int {
	n.t.Helper()
	proc := fmt.Sprintf("/proc/%d/", n.daemon.Process.Pid)
	if err := os.WriteFile(proc+"clear_refs", []byte("5"), 0); err != nil { // proc_pid_clear_refs(5)
		n.t.Fatal(err)
	}
	return func() int {
		n.t.Helper()
		status, err := os.ReadFile(proc + "status")
		if err != nil {
			n.t.Fatalf("%v\n%s", err, n.log.tail())
		}
		_, peak, _ := strings.Cut(string(status), "VmHWM:")
		peak, _, _ = strings.Cut(peak, "kB")
		kib, err := strconv.Atoi(strings.TrimSpace(peak))
		if err != nil {
			n.t.Fatal(err)
		}
		return kib >> 10
	}
}

// serves checks that an authorized session and an exec are served now.
func (n *node) serves(container string) {
	n.t.Helper()
	s := dialWebSocket(n.t, n.execURL(container, pipes, "cat"), pipes).reading()
	sayUntil(n.t, s.in, "hello\n", s.out, "hello\n")
	s.hangUp()
	resp, err := n.runtime.ExecSync(n.ctx(), &runtimeapi.ExecSyncRequest{ContainerId: container, Cmd: []string{"echo", "hello"}, Timeout: 60})
	if err != nil || string(resp.GetStdout()) != "hello\n" {
		n.t.Errorf("a command gives %v, %v", resp, err)
	}
}

// deaf opens the session of a URL over WebSocket and reads nothing.
func (n *node) deaf(where string) net.Conn {
	n.t.Helper()
	u, err := url.Parse(where)
	if err != nil {
		n.t.Fatal(err)
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		n.t.Fatal(err)
	}
	_ = conn.(*net.TCPConn).SetReadBuffer(4096)
	n.t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n", u.Path)
	return conn
}

// Whatever clients do, the daemon's memory stays within its limit, and authorized clients are
// served.
func TestTheDaemonsMemoryIsBounded(t *testing.T) {
	n := started(t)
	c := n.idle()
	// Each begins an attack and returns a function that waits for its end.
	attacks := map[string]func(t *testing.T, n *node, c string) func(){
		"connections without a token, each with 1 MiB of headers": endlessHeaders,
		"terminals whose size has no end":                         endlessSizes,
		"input that no command reads":                             inputThatIsNotRead,
		"100 commands with 20 MB of output each":                  loudCommands,
		"100 attachers that do not read":                          deafAttachers,
		"a client of CRI that closes none of 400 connections":     openConnections,
	}
	for name, attack := range attacks {
		t.Run(name, func(t *testing.T) {
			peak := n.peakMemory()
			end := attack(t, n, c)
			n.serves(c)
			end()
			n.serves(c)
			if got := peak(); got > memoryBound {
				t.Errorf("the daemon has used %d MiB, its bound is %d", got, memoryBound)
			} else {
				t.Logf("the daemon has used %d MiB", got)
			}
		})
	}
}

var rubbish = bytes.Repeat([]byte("x"), 1<<20)

func endlessHeaders(t *testing.T, n *node, c string) func() {
	u, err := url.Parse(n.execURL(c, pipes, "true"))
	if err != nil {
		t.Fatal(err)
	}
	var senders sync.WaitGroup
	for range 1500 {
		conn, err := net.Dial("tcp", u.Host)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetWriteDeadline(time.Now().Add(slow(10 * time.Second)))
		senders.Go(func() {
			_, _ = io.WriteString(conn, "GET /exec/0 HTTP/1.1\r\nX: ")
			_, _ = conn.Write(rubbish)
		})
	}
	return senders.Wait
}

// openConnections makes a connection for each call, as Kubernetes' critest does.
func openConnections(t *testing.T, n *node, _ string) func() {
	for i := range 400 {
		conn, err := grpc.NewClient("unix://"+n.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if _, err := runtimeapi.NewRuntimeServiceClient(conn).Version(t.Context(), &runtimeapi.VersionRequest{}); err != nil {
			t.Fatalf("connection %d: %v", i+1, err)
		}
	}
	return func() {}
}

func endlessSizes(t *testing.T, n *node, c string) func() {
	var senders sync.WaitGroup
	for range 10 {
		to := channel{dialWS(t, n.execURL(c, terminal, "cat"), "v5.channel.k8s.io"), 4}
		senders.Go(func() {
			_, _ = io.WriteString(to, `{"Width":"`)
			for range 20 {
				_, _ = to.Write(rubbish)
			}
		})
	}
	return senders.Wait
}

func inputThatIsNotRead(t *testing.T, n *node, c string) func() {
	var senders sync.WaitGroup
	for range 20 {
		s := dialSPDY(t, n.execURL(c, pipes, "sleep", "5"), pipes)
		senders.Go(func() {
			for range 20 {
				if _, err := s.in.Write(rubbish); err != nil {
					return
				}
			}
		})
	}
	return senders.Wait
}

func loudCommands(t *testing.T, n *node, c string) func() {
	var commands sync.WaitGroup
	for range 100 {
		commands.Go(func() {
			resp, err := n.runtime.ExecSync(n.ctx(), &runtimeapi.ExecSyncRequest{
				ContainerId: c, Cmd: []string{"sh", "-c", "head -c 20000000 /dev/zero; exit 6"},
			}, grpc.MaxCallRecvMsgSize(64<<20))
			if err != nil || resp.GetExitCode() != 6 || len(resp.GetStdout()) < 16<<10 {
				t.Errorf("%d bytes of output, exit code %d, %v", len(resp.GetStdout()), resp.GetExitCode(), err)
			}
		})
	}
	return commands.Wait
}

func deafAttachers(t *testing.T, n *node, _ string) func() {
	config := containerConfig("main", "sh", "-c", "read x; for i in $(seq 100); do yes 0123456789abcdef0123456789abcde | head -c 1048576; sleep .01; done")
	config.Stdin = true
	_, loud := n.runIn("loud", config)
	for range 100 - 1 {
		n.deaf(n.attachURL(loud, pipes))
	}
	s := dialWebSocket(t, n.attachURL(loud, pipes), pipes).reading()
	say(t, s.in, "go\n")
	begin := time.Now()
	return func() {
		err := n.until("the end of the loud container", func() bool {
			s, err := n.containerStatus(loud)
			return err == nil && s.State == runtimeapi.ContainerState_CONTAINER_EXITED
		})
		took := time.Since(begin)
		if t.Logf("the container took %s", took); err != nil || took > slow(30*time.Second) {
			t.Errorf("attachers hold up the container: %s, %v", took, err)
		}
	}
}

// If an application resets one connection, that connection ends. The client's session goes on.
func TestAResetConnectionDoesNotEndItsPortForward(t *testing.T) {
	n := started(t)
	for i, options := range [][]string{{}, {"userns"}} {
		port := 18180 + i
		// A process that ends with unread input resets its TCP connection.
		config := containerConfig("main", "nc", "-ll", "-p", strconv.Itoa(port), "-e", "sh", "-c", "read x; echo got $x; [ $x = stay ] && cat; sleep .2")
		pod, _ := n.runIn(fmt.Sprintf("server%d", i), config, options...)
		resp, err := n.runtime.PortForward(n.ctx(), &runtimeapi.PortForwardRequest{PodSandboxId: pod})
		if err != nil {
			t.Fatal(err)
		}
		conn := connectSPDY(t, resp.Url, "portforward.k8s.io")
		number := 0
		open := func(text, want string) (io.ReadWriter, io.Reader) {
			var data io.ReadWriter
			var errs io.Reader
			if err := n.until("an answer", func() bool { // the server may not listen yet
				number++
				data, errs = forward(t, conn, port, number)
				_, _ = io.WriteString(data, text)
				got := make([]byte, len(want))
				if _, err := io.ReadFull(data, got); err == nil && string(got) == want {
					return true
				}
				_, _ = io.ReadAll(errs) // or the client's library closes it
				return false
			}); err != nil {
				t.Fatal(err)
			}
			return data, errs
		}
		stays, _ := open("stay\n", "got stay\n")
		reset, errs := open("go\nrest that is not read\n", "got go\n")
		rest, _ := io.ReadAll(reset)
		failure, _ := io.ReadAll(errs)
		if len(rest) > 0 || len(failure) > 0 {
			t.Errorf("a connection that was reset: %q, and the client is told %q", rest, failure)
		}
		say(t, stays, "still here\n")
		await(t, stays, "still here\n")
		open("stay\n", "got stay\n")
	}
}

// Libraries log at the configured level, too.
func TestNoLineBelowTheLogLevelIsLogged(t *testing.T) {
	n := newNode(t)
	n.flags = []string{"--log-level", "INFO"}
	n.launch()
	n.loadImage()
	c := n.idle()
	// Clients that disconnect, send nonsense, or ask for nothing or for something that does not
	// exist.
	n.deaf(n.execURL(c, pipes, "cat")).Close()
	connectSPDY(t, n.execURL(c, pipes, "cat"), "v4.channel.k8s.io").Close()
	ws := dialWS(t, n.execURL(c, terminal, "cat"), "v5.channel.k8s.io")
	_, _ = ws.Write([]byte{255})
	_, _ = ws.Write([]byte{4, 'x'})
	ws.Close()
	dialSPDY(t, n.execURL(c, pipes, "no-such-command"), pipes).finish(t)
	pod, _ := n.runIn("server", containerConfig("main", "sleep", "100"))
	resp, err := n.runtime.PortForward(n.ctx(), &runtimeapi.PortForwardRequest{PodSandboxId: pod})
	if err != nil {
		t.Fatal(err)
	}
	_, errs := forward(t, connectSPDY(t, resp.Url, "portforward.k8s.io"), 18280, 1)
	_, _ = io.ReadAll(errs)
	n.serves(c)
	for line := range strings.Lines(n.log.String()) {
		if !strings.Contains(line, "level=INFO") && !strings.Contains(line, "level=WARN") && !strings.Contains(line, "level=ERROR") {
			t.Errorf("at level INFO: %s", line)
		}
	}
}
