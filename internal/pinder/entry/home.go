package entry

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxPasswd is how much of a container's /etc/passwd is read, in bytes.
const maxPasswd = 1 << 20

// Environment is what the program gets. root is a descriptor of the container's root directory, in which the user's
// home is looked up where the process has no HOME.
func Environment(root int, p *Process) ([]string, error) {
	env, homeless, err := environment(p.Env)
	if err != nil || !homeless {
		return env, err
	}
	home, err := home(root, p.User.UID)
	if err != nil {
		return nil, err
	}
	return append(env, "HOME="+home), nil
}

// home reads the container's /etc/passwd. Only a regular file of the root's own file system is read: another one may be
// the container's own, and may never answer. The first entry of the user counts; without one it is "/".
func home(root int, uid uint32) (string, error) {
	fd, err := unix.Openat2(root, "etc/passwd", &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return "/", nil
	}
	if err != nil {
		return "", leave("the container's /etc/passwd: %v", err)
	}
	f := os.NewFile(uintptr(fd), "/etc/passwd")
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return "", leave("the container's /etc/passwd is no regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxPasswd+1))
	if err != nil || len(data) > maxPasswd {
		return "", leave("the container's /etc/passwd is larger than %d bytes, or cannot be read (%v)", maxPasswd, err)
	}
	return homeIn(data, uid)
}

func homeIn(passwd []byte, uid uint32) (string, error) {
	lines := bufio.NewScanner(bytes.NewReader(passwd))
	lines.Buffer(nil, maxPasswd)
	for lines.Scan() {
		fields := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(fields) < 7 || strings.HasPrefix(fields[0], "#") {
			if len(fields) > 2 {
				return "", leave("the container's /etc/passwd has a line that is not of seven fields")
			}
			continue
		}
		n, err := strconv.ParseUint(fields[2], 10, 32)
		if err != nil {
			return "", leave("the container's /etc/passwd has the user ID %q", fields[2])
		}
		if uint32(n) == uid {
			return fields[5], nil
		}
	}
	return "/", nil
}
