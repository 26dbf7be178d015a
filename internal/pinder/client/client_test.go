package client

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

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
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			c, err := Connect(ctx, Options{Binary: "/nowhere", State: dir})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			list, err := c.Containers(ctx)
			if err != nil || len(list) != 1 || list[0].PID != 7 || !list[0].Running() {
				t.Fatalf("containers: %+v, %v", list, err)
			}
			if err := c.ReopenLog(ctx, "a"); err == nil || err.Error() != "no such thing" {
				t.Fatalf("reopen: %v", err)
			}
		})
	}
}

func TestReadExitTellsAbsentTornAndWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "exit")
	if _, found, err := ReadExit(path); found || err != nil {
		t.Fatalf("absent: %v, %v", found, err)
	}
	for _, torn := range []string{"", "{", `{"id":"a"}`, "null", "[]"} {
		if err := os.WriteFile(path, []byte(torn), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, found, err := ReadExit(path); found || err == nil || errors.Is(err, os.ErrNotExist) {
			t.Fatalf("torn %q: %v, %v", torn, found, err)
		}
	}
}
