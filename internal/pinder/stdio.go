package pinder

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

// childEnds are the descriptors for the runtime, ours to close after the call.
type childEnds struct {
	stdin, stdout, stderr int // 0: none
}

func (c *childEnds) close() {
	for _, fd := range []int{c.stdin, c.stdout, c.stderr} {
		if fd > 0 {
			_ = unix.Close(fd)
		}
	}
	*c = childEnds{}
}

// pipes makes the pipes of a process without a terminal, for owner if that is given: a process may open only its own
// again (/dev/stdout). ours[kind] is set for each but a standard input that is not wanted, which is at its end from
// the start. Everything is closed on error.
func pipes(stdin bool, owner *wire.Owner) (child childEnds, ours map[string]int, err error) {
	ours = map[string]int{}
	defer func() {
		if err != nil {
			child.close()
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
			// Both ends are one inode. Runtimes do this too, but in the user namespace, where they may not.
			err = unix.Fchown(p[0], int(owner.UID), int(owner.GID))
		}
		if err != nil {
			err = fmt.Errorf("pipe for %s: owner %d:%d: %w", kind, owner.UID, owner.GID, err)
		}
		return p[1-ourEnd], err
	}
	if child.stdout, err = pipe(kindStdout, 0); err != nil {
		return child, ours, err
	}
	if child.stderr, err = pipe(kindStderr, 0); err != nil {
		return child, ours, err
	}
	if child.stdin, err = pipe(kindStdin, 1); err != nil || stdin {
		return child, ours, err
	}
	_ = unix.Close(ours[kindStdin])
	delete(ours, kindStdin)
	return child, ours, nil
}

// ended makes a pipe from which nothing comes, as a standard input. It stands in for /dev/null, which is the node's:
// what is lent to a runtime may be given to the container's user (crun before 1.24 did), or reach the container.
func ended() (int, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return 0, fmt.Errorf("pipe for stdin: %w", err)
	}
	_ = unix.Close(p[1])
	return p[0], nil
}

// consoleSocket is where the runtime sends the pty master of a process with a
// terminal. The path has to fit sockaddr_un (108 bytes).
type consoleSocket struct {
	path string
	fd   int
}

var consoleCount atomic.Uint64

func (s *supervisor) newConsoleSocket() (*consoleSocket, error) {
	name := strconv.Itoa(os.Getpid()) + "." + strconv.FormatUint(consoleCount.Add(1), 10) + ".s"
	c := &consoleSocket{path: filepath.Join(s.callsDir(), name)}
	var err error
	if c.fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return nil, fmt.Errorf("console socket: %w", err)
	}
	err = unix.Bind(c.fd, &unix.SockaddrUnix{Name: c.path})
	if err == nil {
		err = unix.Listen(c.fd, 1)
	}
	if err != nil {
		c.close()
		return nil, fmt.Errorf("console socket %s: %w", c.path, err)
	}
	return c, nil
}

func (c *consoleSocket) close() {
	_ = unix.Close(c.fd)
	_ = os.Remove(c.path)
}

// receive takes the master after the runtime has ended successfully: then the
// connection and its message are queued already.
func (c *consoleSocket) receive() (int, error) {
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

// resize sets the terminal size of a container.
func (s *supervisor) resize(r wire.Resize) error {
	p, err := s.lookup(r.ID, "")
	if err != nil {
		return err
	}
	h := p.get(kindTTY)
	if h == nil {
		return wire.Errorf(wire.CodeFailedPrecondition, "resize: container %s has no terminal", r.ID)
	}
	if err := unix.IoctlSetWinsize(h.FD, unix.TIOCSWINSZ, &unix.Winsize{Row: r.Height, Col: r.Width}); err != nil {
		return wire.Errorf(wire.CodeInternal, "resize: container %s: %v", r.ID, err)
	}
	return nil
}
