package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const attributePrefix = "SCHILY.xattr."

// checkHeader refuses numbers that the kernel would take for others.
func checkHeader(hdr *tar.Header) error {
	// The greatest number of 32 bits means "leave the owner as it is" (chown(2)): the file would belong to root.
	for _, id := range []int{hdr.Uid, hdr.Gid} {
		if id < 0 || int64(id) >= math.MaxUint32 {
			return fmt.Errorf("owner %d:%d is out of range: %w", hdr.Uid, hdr.Gid, errInvalidArchive)
		}
	}
	for _, number := range []int64{hdr.Devmajor, hdr.Devminor} {
		if number < 0 || number > math.MaxUint32 {
			return fmt.Errorf("device %d:%d is out of range: %w", hdr.Devmajor, hdr.Devminor, errInvalidArchive)
		}
	}
	return nil
}

func nodeMode(hdr *tar.Header) uint32 {
	mode := uint32(hdr.Mode & 0o7777)
	switch hdr.Typeflag {
	case tar.TypeChar:
		return mode | unix.S_IFCHR
	case tar.TypeBlock:
		return mode | unix.S_IFBLK
	}
	return mode | unix.S_IFIFO
}

// inUserNamespace reports whether this process is in a user namespace of its own. There the kernel makes no devices.
var inUserNamespace = sync.OnceValue(func() bool {
	ids, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(ids)), " ") != "0 0 4294967295"
})

// attributesOf gives an open file owner, extended attributes, mode and times. The order matters: a change of the owner
// removes capabilities and set-user-ID bits (chown(2)).
func (a *applier) attributesOf(fd int, at *place, hdr *tar.Header) error {
	if err := unix.Fchown(fd, hdr.Uid, hdr.Gid); err != nil {
		return fmt.Errorf("owner %d:%d: %w", hdr.Uid, hdr.Gid, err)
	}
	for key, value := range hdr.PAXRecords {
		if name, ok := attributeName(key); ok {
			if err := ignoredAttribute(name, true, unix.Fsetxattr(fd, name, []byte(value), 0)); err != nil {
				return err
			}
		}
	}
	if err := unix.Fchmod(fd, uint32(hdr.Mode&0o7777)); err != nil {
		return err
	}
	times := timesOf(hdr)
	return unix.UtimesNanoAt(at.dir.fd, at.base, times[:], unix.AT_SYMLINK_NOFOLLOW)
}

// attributes does the same for what is not open.
func (a *applier) attributes(at *place, hdr *tar.Header) error {
	kind := uint32(0)
	switch hdr.Typeflag {
	case tar.TypeSymlink:
		kind = unix.S_IFLNK
	case tar.TypeDir:
		kind = unix.S_IFDIR
	case tar.TypeLink: // the attributes are those of the file that the link leads to
		var st unix.Stat_t
		if err := unix.Fstatat(at.dir.fd, at.base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		kind = st.Mode & unix.S_IFMT
	}
	if err := unix.Fchownat(at.dir.fd, at.base, hdr.Uid, hdr.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("owner %d:%d: %w", hdr.Uid, hdr.Gid, err)
	}
	for key, value := range hdr.PAXRecords {
		if name, ok := attributeName(key); ok {
			// The path has no symbolic links, and nothing else writes here.
			err := unix.Lsetxattr(filepath.Join(a.gone.root, at.path()), name, []byte(value), 0)
			if err := ignoredAttribute(name, kind == unix.S_IFDIR || kind == unix.S_IFREG, err); err != nil {
				return err
			}
		}
	}
	if kind != unix.S_IFLNK {
		if err := unix.Fchmodat(at.dir.fd, at.base, uint32(hdr.Mode&0o7777), 0); err != nil {
			return err
		}
	}
	times := timesOf(hdr)
	return unix.UtimesNanoAt(at.dir.fd, at.base, times[:], unix.AT_SYMLINK_NOFOLLOW)
}

// attributeName is the name of an extended attribute that an archive may set. Those of trusted are the node's own,
// among them the marks of overlayfs.
func attributeName(key string) (string, bool) {
	name, ok := strings.CutPrefix(key, attributePrefix)
	return name, ok && !strings.HasPrefix(name, "trusted.")
}

// ignoredAttribute: a file system need not have an attribute, and only files and directories have those of users
// (xattr(7)).
func ignoredAttribute(name string, takesUsers bool, err error) error {
	if err == nil || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) && !takesUsers && strings.HasPrefix(name, "user.") {
		return nil
	}
	return fmt.Errorf("attribute %q: %w", name, err)
}

// inherit gives a directory that the archive uses but does not have the attributes that it has in the topmost layer
// below.
func (a *applier) inherit(path string, parents []string) error {
	for _, parent := range parents {
		from, err := openBelow(parent, path)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return ignoreReplaced(err)
		}
		to, err := a.root.beneath(path)
		if err != nil {
			return errors.Join(ignoreReplaced(err), unix.Close(from))
		}
		return errors.Join(copyAttributes(from, to), unix.Close(from), unix.Close(to))
	}
	return nil
}

func openBelow(root, path string) (int, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	below := &directory{fd: dir}
	defer below.close()
	return below.in(path)
}

func copyAttributes(from, to int) error {
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := copyExtended(from, to); err != nil {
		return err
	}
	if err := unix.Fchmod(to, st.Mode&0o7777); err != nil {
		return err
	}
	return unix.UtimesNanoAt(to, ".", []unix.Timespec{st.Atim, st.Mtim}, 0)
}

// copyExtended copies the extended attributes, except those of trusted: a directory that hides what is below it there
// does not hide it here.
func copyExtended(from, to int) error {
	names := make([]byte, 64<<10) // all names have room in it (XATTR_LIST_MAX)
	n, err := unix.Flistxattr(from, names)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list attributes: %w", err)
	}
	value := make([]byte, 64<<10) // each value, too (XATTR_SIZE_MAX)
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.") {
			continue
		}
		size, err := unix.Fgetxattr(from, name, value)
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
			continue
		}
		if err == nil {
			err = unix.Fsetxattr(to, name, value[:size], 0)
		}
		if err := ignoredAttribute(name, true, err); err != nil {
			return err
		}
	}
	return nil
}
