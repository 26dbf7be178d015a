package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// manager is the service manager's end of the notify protocol. It keeps what it was told.
type manager struct {
	mu   sync.Mutex
	said []string
	// onReady is called when READY is read, before anything else is.
	onReady func()
}

func newManager(t *testing.T, address string) *manager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	m := &manager{onReady: func() {}}
	go func() {
		data := make([]byte, 4096)
		for {
			n, err := conn.Read(data)
			if err != nil {
				return
			}
			message := string(data[:n])
			if strings.HasPrefix(message, "READY=1") {
				m.onReady()
			}
			m.mu.Lock()
			m.said = append(m.said, message)
			m.mu.Unlock()
		}
	}()
	return m
}

// count is how many messages contain a text.
func (m *manager) count(text string) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, message := range m.said {
		if strings.Contains(message, text) {
			n++
		}
	}
	return n
}

func (m *manager) all() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.said, "\n--\n")
}

func TestTheServiceManagerIsToldWhenTheSocketAnswers(t *testing.T) {
	t.Parallel()
	for _, abstract := range []bool{false, true} {
		n := newNode(t)
		address := n.path("notify")
		if abstract {
			address = "@pinfold-e2e-" + n.path("notify")
		}
		m := newManager(t, address)
		var early error
		m.onReady = func() {
			conn, err := net.Dial("unix", n.socket())
			if err != nil {
				early = errors.Join(early, err)
				return
			}
			conn.Close()
		}
		n.env = []string{"NOTIFY_SOCKET=" + address}
		n.configured(fmt.Sprintf("cni_conf_dir = %q\n[runtimes]\n%s = %q\n", n.path("cni"), binaries.handler, binaries.runtime))
		n.launch()
		n.check(n.until("READY", func() bool { return m.count("READY=1") == 1 }))
		if early != nil {
			t.Errorf("ready before the socket: %v", early)
		}
		if m.count("STATUS=Starting: ") == 0 || m.count("STATUS=Serving CRI on "+n.socket()) != 1 || m.count("WATCHDOG") != 0 {
			t.Errorf("it said:\n%s", m.all())
		}
		n.loadImage()
		pod := n.runPodOf(n.podConfig("p", "shared-pid"))
		c := n.runContainerOf(pod, sleeper("c"))
		for _, pid := range []int{n.pidOf(c), n.pidOfInit(pod)} {
			if environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); err != nil || strings.Contains(string(environ), "NOTIFY_SOCKET") {
				t.Errorf("a process of a pod has the variable: %v, %q", err, environ)
			}
		}
		n.reload(reread)
		n.check(n.until("READY again", func() bool { return m.count("READY=1") == 2 }))
		if m.count("RELOADING=1\nMONOTONIC_USEC=") != 1 {
			t.Errorf("it said:\n%s", m.all())
		}
		n.write("etc/conf.d/bad.toml", "x")
		n.reload("the configuration is not usable")
		n.check(n.until("READY with the reason", func() bool { return m.count("the configuration was not reloaded: ") == 1 }))
		n.check(os.Remove(n.path("etc/conf.d/bad.toml")))
		n.endPod(pod)
		n.signal(syscall.SIGTERM)
		n.check(n.until("STOPPING", func() bool { return m.count("STOPPING=1") == 1 }))
		n.launch()
	}
}

// Nothing of this is a fault of the daemon's that a restart would cure.
func TestTheWatchdogIsFedWhateverHappensAroundTheDaemon(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	m := newManager(t, n.path("notify"))
	n.env = []string{"NOTIFY_SOCKET=" + n.path("notify"), "WATCHDOG_USEC=4000000"} // each fifth of a second
	n.launch()
	n.loadImage()
	fed := func(what string) {
		t.Helper()
		before := m.count("WATCHDOG=1")
		n.check(n.until(what+": the watchdog is fed", func() bool { return m.count("WATCHDOG=1") > before+12 }))
		if m.count("WATCHDOG=trigger") != 0 {
			t.Fatalf("%s: the daemon gives up:\n%s\n%s", what, m.all(), n.log.tail())
		}
	}
	fed("at rest")
	n.check(os.Rename(n.path("cni/10-test.conflist"), n.path("10-test.conflist")))
	fed("without a network")
	n.check(os.Rename(n.path("10-test.conflist"), n.path("cni/10-test.conflist")))

	var conns []net.Conn
	for range 700 { // more than the socket may have
		conn, err := net.Dial("unix", n.socket())
		n.check(err)
		conns = append(conns, conn)
	}
	fed("too many clients")
	for _, conn := range conns {
		conn.Close()
	}
	n.check(n.until("a call", func() bool {
		_, err := n.runtime.Version(n.ctx(), &runtimeapi.VersionRequest{})
		return err == nil
	}))

	n.check(n.daemon.Process.Signal(syscall.SIGSTOP))
	before := m.count("WATCHDOG")
	time.Sleep(3 * time.Second) // as long as the clock of a stopped machine stands
	if m.count("WATCHDOG") > before+1 {
		t.Errorf("a stopped daemon feeds the watchdog")
	}
	n.check(n.daemon.Process.Signal(syscall.SIGCONT))
	fed("after a stop")

	n.check(os.Remove(n.socket()))
	fed("without its socket")
	n.check(n.until("the socket", func() bool { _, err := os.Stat(n.socket()); return err == nil }))
}
