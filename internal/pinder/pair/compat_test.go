package pair

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
