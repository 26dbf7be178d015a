package rootfs

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// within reports whether path is dir or below it; both are clean and absolute.
func within(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// identity tells one file from another, and one mount from another.
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

// sameFile compares the files, whatever mounts they are seen through.
func (a identity) sameFile(b identity) bool {
	return a.inode == b.inode && a.major == b.major && a.minor == b.minor
}

// kernelRelease is for error texts only.
func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "of unknown release"
	}
	return unix.ByteSliceToString(u.Release[:])
}
