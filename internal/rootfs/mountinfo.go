package rootfs

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountEntry is one line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
type mountEntry struct {
	id, parent uint64
	point      string
	options    string // of the mount, "idmapped" among them
	optional   string // shared:N, master:N, unbindable
	fstype     string
	source     string
}

// readMounts returns the mounts of this process's mount namespace for which keep is true,
// parents before children.
func readMounts(keep func(mountEntry) bool) ([]mountEntry, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var found []mountEntry
	lines := bufio.NewScanner(f)
	// A line carries all options of an overlay, which may be a page and more.
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		m, err := parseMount(lines.Text())
		if err != nil {
			return nil, err
		}
		if keep(m) {
			found = append(found, m)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read /proc/self/mountinfo: %w", err)
	}
	return found, nil
}

func parseMount(line string) (mountEntry, error) {
	bad := fmt.Errorf("/proc/self/mountinfo: unexpected line %q", line)
	head, tail, ok := strings.Cut(line, " - ")
	if !ok {
		return mountEntry{}, bad
	}
	h, t := strings.Split(head, " "), strings.Split(tail, " ")
	if len(h) < 6 || len(t) < 2 {
		return mountEntry{}, bad
	}
	id, err1 := strconv.ParseUint(h[0], 10, 64)
	parent, err2 := strconv.ParseUint(h[1], 10, 64)
	if err1 != nil || err2 != nil {
		return mountEntry{}, bad
	}
	return mountEntry{
		id: id, parent: parent,
		point:    unescapeOctal(h[4]),
		options:  h[5],
		optional: strings.Join(h[6:], " "),
		fstype:   t[0],
		source:   unescapeOctal(t[1]),
	}, nil
}

// unescapeOctal undoes the kernel's \040 for blank, tab, newline and backslash.
func unescapeOctal(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// within reports whether path is dir or below it; both are clean and absolute.
func within(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// identity is what tells one file from another, and one mount from another.
type identity struct {
	mount, inode uint64
	major, minor uint32
}

func identify(f *os.File) (identity, error) {
	var st unix.Statx_t
	mask := unix.STATX_INO | unix.STATX_MNT_ID
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, mask, &st); err != nil {
		return identity{}, fmt.Errorf("statx %s: %w", f.Name(), err)
	}
	return identity{mount: st.Mnt_id, inode: st.Ino, major: st.Dev_major, minor: st.Dev_minor}, nil
}

// sameFile ignores the mount through which a file is seen.
func (a identity) sameFile(b identity) bool {
	return a.inode == b.inode && a.major == b.major && a.minor == b.minor
}

// kernelRelease is for error texts only: nothing is decided by it.
func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "of unknown release"
	}
	return unix.ByteSliceToString(u.Release[:])
}
