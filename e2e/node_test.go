package e2e

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/testimage"
)

// busybox is the image that every node of the tests has, made on the spot.
const busybox = "docker.io/library/busybox:test"

// readyTimeout bounds the start of a daemon and of whatever has to happen soon after it.
var readyTimeout = slow(30 * time.Second)

// slow is a time limit on this machine: $PINFOLD_TEST_SLOW says how many times slower than others it is.
func slow(limit time.Duration) time.Duration {
	if factor, err := strconv.Atoi(os.Getenv("PINFOLD_TEST_SLOW")); err == nil && factor > 0 {
		return limit * time.Duration(factor)
	}
	return limit
}

// cgroupDriver is the daemon's: $PINFOLD_CGROUP_DRIVER, or cgroupfs, which works with every init.
func cgroupDriver() string {
	if driver := os.Getenv("PINFOLD_CGROUP_DRIVER"); driver != "" {
		return driver
	}
	return "cgroupfs"
}

// node is one instance of Pinfold with directories, bridge and subnet of its own.
type node struct {
	t      *testing.T
	dir    string
	number int // 1 to 250, part of its addresses; begun again when all were used: nodes do not live that long
	// flags come after the usual ones.
	flags []string
	// file is a configuration file, in place of the usual flags.
	file string
	// program is the daemon's binary, if not the usual one.
	program string
	env     []string
	// stderr is the daemon's, if not the log that the test keeps.
	stderr *os.File
	boots  int
	// shell is run by a shell that then becomes the daemon.
	shell string
	// authFile has credentials for the operator's command; empty for none.
	authFile string

	daemon *exec.Cmd
	exited chan struct{}
	log    *logBuffer

	conn    *grpc.ClientConn
	runtime runtimeapi.RuntimeServiceClient
	images  runtimeapi.ImageServiceClient
	before  hostState
}

var nodeNumber atomic.Int32

// newNode makes a node's directories and network configuration. When the test ends, everything of it
// is removed by force, and whatever a clean removal should have taken along is an error.
func newNode(t *testing.T) *node {
	t.Helper()
	dir, err := os.MkdirTemp("", "pf-")
	if err != nil {
		t.Fatal(err)
	}
	// A pod's mapped root has to pass.
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, dir: dir, number: (int(nodeNumber.Add(1))-1)%250 + 1, log: &logBuffer{}}
	t.Cleanup(n.destroy)
	for _, d := range []string{"cni", "certs.d", "logs", "volumes"} {
		if err := os.Mkdir(n.path(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	n.writeNetwork()
	n.before = n.hostState()
	return n
}

func (n *node) path(parts ...string) string {
	return filepath.Join(append([]string{n.dir}, parts...)...)
}

func (n *node) socket() string { return n.path("s.sock") }

func (n *node) bridge() string { return fmt.Sprintf("pf%d", n.number) }

// writeNetwork configures the bridge, host-local and portmap plugins with two address families.
func (n *node) writeNetwork() {
	conf := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"pinfold-test","plugins":[
 {"type":"bridge","bridge":%q,"isGateway":true,"ipMasq":true,"hairpinMode":true,
  "ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.77.%d.0/24"}],[{"subnet":"fd77:%d::/64"}]],"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}`, n.bridge(), n.path("ipam"), n.number, n.number)
	n.write("cni/10-test.conflist", conf)
}

func (n *node) write(name, content string) {
	n.t.Helper()
	if err := os.WriteFile(n.path(name), []byte(content), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) arguments() []string {
	if n.file != "" {
		return append([]string{"--config", n.file}, n.flags...)
	}
	return append([]string{
		"--config", "/dev/null", "--root", n.path("root"), "--state", n.path("state"), "--socket", n.socket(),
		"--netns-dir", n.path("netns"), "--cni-conf-dir", n.path("cni"), "--cni-bin-dir", binaries.cniBin,
		"--registry-config-dir", n.path("certs.d"), "--runtime", binaries.handler + "=" + binaries.runtime, "--default-runtime", binaries.handler,
		"--cgroup-driver", cgroupDriver(), "--log-level", "DEBUG",
	}, n.flags...)
}

// launch runs the daemon and waits until it serves.
func (n *node) launch() {
	n.t.Helper()
	n.daemon = exec.Command(cmp.Or(n.program, binaries.pinfoldd), n.arguments()...)
	if n.shell != "" {
		n.daemon = exec.Command("sh", append([]string{"-c", n.shell + `; exec "$0" "$@"`}, n.daemon.Args...)...)
	}
	n.daemon.Stderr = n.log
	if n.stderr != nil {
		n.daemon.Stderr = n.stderr
	}
	n.daemon.Env = append(os.Environ(), n.env...)
	if err := n.daemon.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		_ = cmd.Wait()
		close(exited)
	}(n.daemon, n.exited)
	n.connect()
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	if _, err := n.runtime.Version(ctx, &runtimeapi.VersionRequest{}, grpc.WaitForReady(true)); err != nil {
		n.t.Fatalf("the daemon does not serve: %v\n%s", err, n.log.tail())
	}
}

func (n *node) connect() {
	n.t.Helper()
	if n.conn != nil {
		n.conn.Close()
	}
	conn, err := grpc.NewClient("unix://"+n.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second}))
	if err != nil {
		n.t.Fatal(err)
	}
	n.conn, n.runtime, n.images = conn, runtimeapi.NewRuntimeServiceClient(conn), runtimeapi.NewImageServiceClient(conn)
}

// signal sends a signal to the daemon and waits for its end.
func (n *node) signal(s syscall.Signal) {
	n.t.Helper()
	if n.daemon == nil {
		return
	}
	_ = n.daemon.Process.Signal(s)
	select {
	case <-n.exited:
	case <-time.After(readyTimeout):
		n.t.Errorf("the daemon did not end on %v:\n%s", s, n.log.tail())
		_ = n.daemon.Process.Kill()
		<-n.exited
	}
	n.daemon = nil
}

// kill is kill -9 of the daemon.
func (n *node) kill() { n.signal(syscall.SIGKILL) }

// loadImage gives the node its busybox.
func (n *node) loadImage() {
	n.t.Helper()
	var archive bytes.Buffer
	if err := testimage.Write(&archive, testimage.Options{Name: busybox}); err != nil {
		n.t.Fatal(err)
	}
	load := exec.Command(binaries.pinfold, "--socket", n.socket(), "image", "load", "-")
	load.Stdin = &archive
	if out, err := load.CombinedOutput(); err != nil {
		n.t.Fatalf("load image: %v: %s", err, out)
	}
}

// ctx is bounded by what any single request of these tests may take.
func (n *node) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), slow(2*time.Minute))
	n.t.Cleanup(cancel)
	return ctx
}

// started is a node with a daemon and an image.
func started(t *testing.T) *node {
	t.Helper()
	n := newNode(t)
	n.launch()
	n.loadImage()
	return n
}

// removeAll removes every pod that the node lists.
func (n *node) removeAll() error {
	list, err := n.runtime.ListPodSandbox(n.ctx(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	var failed []error
	for _, pod := range list.Items {
		_, err := n.runtime.RemovePodSandbox(n.ctx(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod.Id})
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// destroy is the end of every test: all pods are removed in the ordinary way, the daemon is ended,
// and then the host must be as it was.
func (n *node) destroy() {
	if n.daemon != nil {
		if err := n.removeAll(); err != nil {
			n.t.Errorf("removing all pods: %v", err)
		}
		n.signal(syscall.SIGTERM)
		// An idle pinder ends with the daemon, but not before it.
		if n.until("a clean host", func() bool { return len(n.leftovers()) == 0 }) != nil {
			n.t.Errorf("left behind:\n  %s", strings.Join(n.leftovers(), "\n  "))
		}
	}
	if n.conn != nil {
		n.conn.Close()
	}
	n.force()
	if n.t.Failed() {
		n.t.Logf("the daemon's log ends:\n%s", n.log.tail())
	}
}

// logBuffer collects the daemon's log.
type logBuffer struct {
	mu   sync.Mutex
	data []byte
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data = append(b.data, p...)
	return len(p), nil
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.data)
}

func (b *logBuffer) tail() string {
	const most = 6000
	text := b.String()
	return text[max(0, len(text)-most):]
}
