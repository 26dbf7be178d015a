package oci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// ChildEnds are the descriptors that the runtime gets. We close them after the call.
type ChildEnds struct {
	Stdin, Stdout, Stderr int // 0: none
}

// Close closes them. It may be called again.
func (c *ChildEnds) Close() {
	for _, fd := range []int{c.Stdin, c.Stdout, c.Stderr} {
		if fd > 0 {
			_ = unix.Close(fd)
		}
	}
	*c = ChildEnds{}
}

// Pipes makes the pipes of a process without a terminal. They are owner's if that is given: a process may open only
// its own pipes again, by /dev/stdout. ours has our ends, by "stdin", "stdout" and "stderr"; without stdin, the
// process's standard input is at its end from the start. On error everything is closed.
func Pipes(stdin bool, owner *wire.Owner) (child ChildEnds, ours map[string]int, err error) {
	ours = map[string]int{}
	defer func() {
		if err != nil {
			child.Close()
			for _, fd := range ours {
				_ = unix.Close(fd)
			}
		}
	}()
	pipe := func(kind string, ourEnd int) (theirs int, err error) {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			return 0, fmt.Errorf("pipe for %s: %w", kind, err)
		}
		ours[kind] = p[ourEnd]
		if owner != nil {
			// Both ends are one inode. Runtimes change the owner, too, but in the user namespace, where they may not.
			err = unix.Fchown(p[0], int(owner.UID), int(owner.GID))
		}
		if err != nil {
			err = fmt.Errorf("pipe for %s: owner %d:%d: %w", kind, owner.UID, owner.GID, err)
		}
		return p[1-ourEnd], err
	}
	if child.Stdout, err = pipe("stdout", 0); err != nil {
		return child, ours, err
	}
	if child.Stderr, err = pipe("stderr", 0); err != nil {
		return child, ours, err
	}
	if child.Stdin, err = pipe("stdin", 1); err != nil || stdin {
		return child, ours, err
	}
	_ = unix.Close(ours["stdin"])
	delete(ours, "stdin")
	return child, ours, nil
}

// ended makes a pipe that is at its end, as a standard input. The node's /dev/null is not used: a runtime may give
// what it gets to the container's user (crun before 1.24 did), or the container may get it.
func ended() (int, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return 0, fmt.Errorf("pipe for stdin: %w", err)
	}
	_ = unix.Close(p[1])
	return p[0], nil
}

// ConsoleSocket is where the runtime sends the pty master of a process with a
// terminal. The path has to fit sockaddr_un (108 bytes).
type ConsoleSocket struct {
	Path string
	fd   int
}

var consoleCount atomic.Uint64

// NewConsoleSocket makes the socket and listens.
func (r *Caller) NewConsoleSocket() (*ConsoleSocket, error) {
	name := strconv.Itoa(os.Getpid()) + "." + strconv.FormatUint(consoleCount.Add(1), 10) + ".s"
	c := &ConsoleSocket{Path: filepath.Join(r.Dir, name)}
	var err error
	if c.fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return nil, fmt.Errorf("console socket: %w", err)
	}
	err = unix.Bind(c.fd, &unix.SockaddrUnix{Name: c.Path})
	if err == nil {
		err = unix.Listen(c.fd, 1)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("console socket %s: %w", c.Path, err)
	}
	return c, nil
}

// Close removes the socket.
func (c *ConsoleSocket) Close() {
	_ = unix.Close(c.fd)
	_ = os.Remove(c.Path)
}

// Receive takes the terminal's master after the runtime has ended without an error: connection and message are queued
// then.
func (c *ConsoleSocket) Receive() (int, error) {
	conn, _, err := unix.Accept4(c.fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return -1, fmt.Errorf("console: the runtime sent no terminal: %w", err)
	}
	defer func() { _ = unix.Close(conn) }()
	buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*4))
	_, oobn, _, _, err := unix.Recvmsg(conn, buf, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("console: receive terminal: %w", err)
	}
	fds := wire.Rights(oob[:oobn])
	if len(fds) == 0 {
		return -1, errors.New("console: the runtime sent no terminal")
	}
	descriptor.CloseAll(fds[1:])
	return fds[0], nil
}
