package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/config"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/pod/recovery"
	"github.com/pinfold-run/pinfold/internal/record"
)

// claim locks the root, the state directory and the sockets for this daemon, before anything in
// them is read or changed. It fails if another daemon has one of them, or if the state directory
// belongs to another root.
func claim(c *config.Config, paths pod.Paths, log *slog.Logger) (release func(), err error) {
	var held []func()
	unlockAll := func() {
		for _, unlock := range held {
			unlock()
		}
	}
	defer func() {
		if err != nil {
			unlockAll()
		}
	}()
	for _, file := range lockFiles(c) {
		if err := os.MkdirAll(filepath.Dir(file.path), 0o711); err != nil {
			return nil, err
		}
		unlock, err := lock(file.path, file.of)
		if err != nil {
			return nil, err
		}
		held = append(held, unlock)
	}
	for _, socket := range []string{c.Socket, c.NRISocket, c.AdminSocket} {
		if err := vacant(socket); err != nil {
			return nil, err
		}
	}
	boot, err := record.BootID()
	if err != nil {
		return nil, err
	}
	return unlockAll, recovery.Claim(paths, boot, func(err error) {
		log.Warn("the state directory does not record its root, so a daemon with another root can start on it", "error", err)
	})
}

type lockFile struct{ path, of string }

func lockFiles(c *config.Config) []lockFile {
	files := []lockFile{
		{filepath.Join(c.Root, "pinfoldd.lock"), "root " + c.Root},
		{filepath.Join(c.State, "pinfoldd.lock"), "state directory " + c.State},
		{c.Socket + ".lock", "socket " + c.Socket},
	}
	if c.NRISocket != "" {
		files = append(files, lockFile{c.NRISocket + ".lock", "NRI socket " + c.NRISocket})
	}
	if path := c.AdminSocket; path != "" {
		files = append(files, lockFile{path + ".lock", "admin socket " + path})
	}
	return files
}

// lock makes sure that only one daemon uses what the file stands for. The lock ends with the
// process: it is a record lock (fcntl_locking(2)), which children do not inherit. A lock of
// flock(2) belongs to the open file. A child that a killed daemon has forked, and that has not yet
// reached its execve(2), would keep it.
func lock(path, of string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	want := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &want); err != nil {
		owner := ""
		if unix.FcntlFlock(f.Fd(), unix.F_GETLK, &want) == nil && want.Type != unix.F_UNLCK {
			owner = fmt.Sprintf(" (pid %d)", want.Pid)
		}
		f.Close()
		return nil, fmt.Errorf("another pinfoldd%s has the %s: %w: %w", owner, of, err, errdefs.ErrFailedPrecondition)
	}
	return func() { f.Close() }, nil
}

// vacant returns an error if a program serves the socket at path, or if path is not a socket.
func vacant(path string) error {
	if path == "" {
		return nil
	}
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("%s exists and is not a socket; nothing was changed: %w", path, errdefs.ErrFailedPrecondition)
	}
	for end := time.Now().Add(heirTimeout); ; time.Sleep(heirPause) {
		conn, err := net.DialTimeout("unix", path, dialTimeout)
		if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
			return nil // its process is gone
		}
		if err != nil {
			return fmt.Errorf("the socket %s may be in use: %w: %w", path, err, errdefs.ErrFailedPrecondition)
		}
		err = fmt.Errorf("another program%s serves on the socket %s: %w", peer(conn), path, errdefs.ErrFailedPrecondition)
		ended := errors.Is(syscall.Kill(peerPID(conn), 0), syscall.ESRCH)
		conn.Close()
		if !ended || time.Now().After(end) {
			return err
		}
	}
}

// A daemon that was killed while it started a program leaves its sockets to that process, which closes them when it executes
// the program (O_CLOEXEC). So they are open for a moment although nobody serves.
const (
	heirTimeout = time.Second
	heirPause   = 2 * time.Millisecond
)

// dialTimeout limits the connection to a socket that exists.
const dialTimeout = 2 * time.Second

// peer names the process at the other end, "" if unknown.
func peer(conn net.Conn) string {
	if pid := peerPID(conn); pid != 0 {
		return fmt.Sprintf(" (pid %d)", pid)
	}
	return ""
}

// peerPID is the process at the other end, 0 if unknown.
func peerPID(conn net.Conn) int {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}
