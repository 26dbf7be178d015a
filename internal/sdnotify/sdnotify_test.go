package sdnotify

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// manager is a service manager: it has the socket.
func manager(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	return conn
}

func next(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	data := make([]byte, 4096)
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := conn.Read(data)
	if err != nil {
		t.Fatal(err)
	}
	return string(data[:n])
}

func TestEachMessageIsOneDatagramToASocketWithOrWithoutAFile(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), fmt.Sprintf("@pinfold-test-%d", os.Getpid())} {
		conn := manager(t, name)
		n := New()
		for _, c := range []struct {
			send func() error
			want string
		}{
			{func() error { return n.Status("starts") }, "STATUS=starts"},
			{func() error { return n.Ready("serves") }, "READY=1\nSTATUS=serves"},
			{n.Alive, "WATCHDOG=1"},
			{func() error { return n.Dead("hangs") }, "WATCHDOG=trigger\nSTATUS=hangs"},
			{func() error { return n.Stopping("ends\nREADY=1\x00") }, "STOPPING=1\nSTATUS=ends READY=1 "},
			{func() error { return n.Status(strings.Repeat("ä", 400) + "\xff") }, "STATUS=" + strings.Repeat("ä", 256) + "…"},
		} {
			if err := c.send(); err != nil {
				t.Fatal(err)
			}
			if got := next(t, conn); got != c.want {
				t.Errorf("%s: %q, want %q", name, got, c.want)
			}
		}
		if err := n.Reloading(); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(next(t, conn), "\n")
		if usec, err := strconv.ParseInt(strings.TrimPrefix(lines[1], "MONOTONIC_USEC="), 10, 64); lines[0] != "RELOADING=1" || err != nil || usec <= 0 {
			t.Errorf("%q", lines)
		}
	}
}

func TestChildrenDoNotGetTheVariables(t *testing.T) {
	for name, value := range map[string]string{"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"} {
		t.Setenv(name, value)
	}
	New()
	for _, set := range os.Environ() {
		if strings.HasPrefix(set, "NOTIFY_") || strings.HasPrefix(set, "WATCHDOG_") {
			t.Errorf("%s is set", set)
		}
	}
}

func TestTheWatchdogIsThatOfThisProcess(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	for _, c := range []struct {
		socket, usec, pid string
		want              time.Duration
	}{
		{"/x", "3000000", own, 3 * time.Second},
		{"/x", "3000000", "", 3 * time.Second},
		{"/x", "3000000", "1", 0},
		{"/x", "3000000", "x", 0},
		{"", "3000000", own, 0},
		{"/x", "", own, 0},
		{"/x", "-1", own, 0},
		{"/x", "99999999999999999999", own, 0},
		{"/x", "9999999999999999", own, 0},
	} {
		t.Setenv("NOTIFY_SOCKET", c.socket)
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		if got := New().Interval(); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

func TestWithoutAManagerNothingIsSentAndAManagerThatIsGoneIsAnError(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	for _, n := range []*Notifier{nil, {}, New()} {
		if err := n.Ready(""); err != nil || n.Interval() != 0 {
			t.Errorf("%v", err)
		}
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "gone"))
	if err := New().Ready(""); err == nil {
		t.Error("no error")
	}
}

func TestAManagerThatDoesNotReadHoldsNothingUpForLong(t *testing.T) {
	manager(t, filepath.Join(t.TempDir(), "notify"))
	n := New()
	began := time.Now()
	for range 1000 {
		if err := n.Alive(); err != nil {
			if time.Since(began) > 10*sendTimeout {
				t.Errorf("it took %s", time.Since(began))
			}
			return
		}
	}
	t.Skip("this kernel keeps any number of datagrams")
}
