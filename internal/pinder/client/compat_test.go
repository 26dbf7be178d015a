package client

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// rawConn speaks the protocol by hand.
func rawConn(t *testing.T, n *node) *wire.Conn {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: filepath.Join(n.state(), "pinder.sock")}); err != nil {
		t.Fatal(err)
	}
	c, err := wire.NewConn(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

func send(t *testing.T, c *wire.Conn, id uint64, typ, body string) {
	t.Helper()
	if err := c.Write(wire.Message{ID: id, Type: typ, Body: json.RawMessage(body)}); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, c *wire.Conn) wire.Message {
	t.Helper()
	m, err := c.Read()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestPinderServesADaemonOfALaterVersion(t *testing.T) {
	n := newNode(t)
	c := rawConn(t, n)
	if m := receive(t, c); m.Type != wire.TypeHello {
		t.Fatalf("first message: %+v", m)
	}
	send(t, c, 0, wire.TypeHello, `{"version":2,"capabilities":["telepathy"],"later":{}}`)
	send(t, c, 0, "an-event-of-later", `{}`)
	send(t, c, 5, "a-request-of-later", `{"x":1}`)
	if m := receive(t, c); m.ID != 5 || m.Error == nil || m.Error.Code != wire.CodeUnknownRequest {
		t.Fatalf("answer to an unknown request: %+v", m)
	}
	send(t, c, 6, wire.TypePing, `{"later":true}`)
	if m := receive(t, c); m.ID != 6 || m.Error != nil {
		t.Fatalf("answer to ping: %+v", m)
	}
	send(t, c, 7, wire.TypeStart, `{"id":17}`)
	if m := receive(t, c); m.ID != 7 || m.Error == nil || m.Error.Code != wire.CodeInvalidArgument {
		t.Fatalf("answer to a bad body: %+v", m)
	}
}

func TestHostileConnectionEndsAloneAndPinderGoesOn(t *testing.T) {
	n := newNode(t)
	_, inner := n.pids()
	for _, in := range []string{"GET / HTTP/1.1\r\n\r\n", "PF\x00\x00\x7f\xff\xff\xff", "PF\x00\x00\x00\x00\x00\x02[]", "PF"} {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: filepath.Join(n.state(), "pinder.sock")}); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(fd, []byte(in)); err != nil {
			t.Fatal(err)
		}
		_ = unix.Shutdown(fd, unix.SHUT_WR)
		buf := make([]byte, 4096)
		for {
			got, err := unix.Read(fd, buf)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if got <= 0 {
				break
			}
		}
		_ = unix.Close(fd)
	}
	n.run("a", "exit 2")
	if e := n.exit("a"); e.Code != 2 {
		t.Fatalf("exit: %+v", e)
	}
	if _, now := n.pids(); now != inner {
		t.Fatal("the supervisor died")
	}
}

// otherPinder is a pinder of another release, in this process.
func otherPinder(t *testing.T, socket string, hello wire.Hello, serve func(*wire.Conn, wire.Message)) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 8); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Shutdown(fd, unix.SHUT_RDWR); _ = unix.Close(fd) })
	go func() {
		for {
			s, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
			if err != nil {
				return
			}
			c, err := wire.NewConn(s)
			if err != nil {
				return
			}
			m, _ := wire.New(0, wire.TypeHello, hello)
			_ = c.Write(m)
			for {
				m, err := c.Read()
				if err != nil {
					_ = c.Close()
					break
				}
				if m.ID != 0 {
					serve(c, m)
				}
			}
		}
	}()
}

func TestDaemonWorksWithAPinderOfAnotherVersion(t *testing.T) {
	for name, hello := range map[string]wire.Hello{
		"earlier": {Version: 0, Reaper: 1 << 30, Supervisor: 1 << 30},
		"later":   {Version: wire.Version + 1, Capabilities: []string{"telepathy", "restore"}, Reaper: 1 << 30, Supervisor: 1 << 30},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			otherPinder(t, filepath.Join(dir, "pinder.sock"), hello, func(c *wire.Conn, m wire.Message) {
				switch m.Type {
				case wire.TypeSync, wire.TypeList:
					_ = c.Write(wire.Message{Type: "an-event-of-later", Body: json.RawMessage(`[]`)})
					_ = c.Write(wire.Message{ID: m.ID, Type: wire.TypeReply, Body: json.RawMessage(`{"containers":[{"id":"a","phase":"running","pid":7,"later":1}],"later":2}`)})
				case wire.TypeOffer:
					_ = c.Write(wire.Message{ID: m.ID, Type: wire.TypeReply, Body: json.RawMessage(`{"keys":[]}`)})
				default:
					_ = c.Write(wire.Message{ID: m.ID, Type: wire.TypeReply, Error: wire.Errorf("a-code-of-later", "no such thing")})
				}
			})
			n := &node{t: t}
			c, err := Connect(n.ctx(), Options{Binary: "/nowhere", State: dir})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			list, err := c.Containers(n.ctx())
			if err != nil || len(list) != 1 || list[0].PID != 7 || !list[0].Running() {
				t.Fatalf("containers: %+v, %v", list, err)
			}
			if err := c.ReopenLog(n.ctx(), "a"); err == nil || err.Error() != "no such thing" {
				t.Fatalf("reopen: %v", err)
			}
		})
	}
}
