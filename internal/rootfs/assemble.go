package rootfs

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// method is a way to tell the kernel the layers of an overlay. The best comes first.
type method int

const (
	// byFD passes descriptors (Linux 6.13; of detached mounts, such as id-mapped layers, 6.15). Only the result is
	// attached.
	byFD method = iota
	// byAppend adds the layers by path, one at a time (Linux 6.5). Clones must be attached meanwhile.
	byAppend
	// byString lists all layers in the one page of options of mount(2). Clones must be attached.
	byString
	methods
)

func (m method) String() string {
	return [...]string{"by descriptor", "by lowerdir+ paths", "by one lowerdir string"}[m]
}

// assembler mounts overlays by the best method that this kernel has.
type assembler struct {
	// method remembers, by whether the layers are id-mapped, how this kernel takes layers:
	// 0 while unknown, else the method plus one. Index 1 is for id-mapped layers.
	method [2]atomic.Int32
	// without makes methods fail as on kernels that lack them. Tests set it before the first use.
	without [methods]bool
}

// assembly is one overlay about to be mounted at target.
type assembly struct {
	target string
	lower  *lowers
	temp   string // where the clones may be attached meanwhile
	upper  upper
	o      *Overlay
}

// options are the same for every mount with an upper directory; see the package comment.
var options = [][2]string{{"index", "off"}, {"metacopy", "off"}, {"redirect_dir", "nofollow"}, {"xino", "off"}}

// contextOption gives all files of a mount one label for SELinux, whatever labels they have.
const contextOption = "context"

// assemble mounts by the best method that this kernel has. The first mount tries them. When assemble returns, no
// temporary mount is left.
func (a *assembler) assemble(as assembly) error {
	if as.o.Upper == "" && len(as.lower.dirs) == 1 {
		// An overlay without an upper directory needs two lower ones. A bind of the one layer would be readable, too. But a
		// process with CAP_SYS_ADMIN in the user namespace can make a bind writable, and never such an overlay (EROFS).
		if err := as.lower.addEmpty(); err != nil {
			return err
		}
	}
	known := &a.method[0]
	if as.o.UserNS != nil {
		known = &a.method[1]
	}
	var err error
	if m := known.Load(); m != 0 {
		err = a.try(method(m-1), as)
	} else {
		err = a.tryAll(known, as)
	}
	if as.lower.attached {
		// Overlayfs has made its own private clones by now.
		err = errors.Join(err, clearTree(as.temp, 1))
	}
	return err
}

func (a *assembler) tryAll(known *atomic.Int32, as assembly) error {
	var refused error
	for m := byFD; m < methods; m++ {
		err := a.try(m, as)
		if err == nil {
			known.Store(int32(m) + 1)
			return nil
		}
		if refused == nil {
			refused = fmt.Errorf("%s: %w", m, err)
		} else {
			refused = fmt.Errorf("%w; %s: %w", refused, m, err)
		}
		if !refusedForm(err) {
			break
		}
		if err := as.upper.resetWork(); err != nil {
			return err
		}
	}
	return refused
}

func (a *assembler) try(m method, as assembly) error {
	if a.without[m] {
		return unix.EINVAL
	}
	if m == byFD {
		return as.attached(as.byFD)
	}
	if err := as.lower.attach(as.temp); err != nil {
		return err
	}
	if m == byAppend {
		return as.attached(as.byAppend)
	}
	return as.byString()
}

// attached makes a detached overlay and attaches it at its target.
func (as assembly) attached(configure func(*fsContext) error) error {
	c, err := openFS("overlay")
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.setString("source", areaSource); err != nil {
		return err
	}
	if err := as.configure(c); err != nil {
		return err
	}
	if err := configure(c); err != nil {
		return err
	}
	mnt, err := c.mount(as.attributes())
	if err != nil {
		return err
	}
	defer func() { _ = mnt.Close() }()
	return attachPrivate(mnt, as.target)
}

func (as assembly) readOnly() bool { return as.o.ReadOnly || as.o.Upper == "" }

// attributes are the mount's own. A pod in a user namespace gets nodev: device nodes of an image would open the node's
// devices, and the kernel forces nodev on what such a pod mounts itself.
func (as assembly) attributes() (attrs int) {
	if as.readOnly() {
		attrs |= unix.MOUNT_ATTR_RDONLY
	}
	if as.o.UserNS != nil {
		attrs |= unix.MOUNT_ATTR_NODEV
	}
	return attrs
}

func (as assembly) configure(c *fsContext) error {
	for _, o := range options {
		if err := c.setString(o[0], o[1]); err != nil {
			return err
		}
	}
	if as.o.SELinuxContext != "" {
		if err := c.setString(contextOption, as.o.SELinuxContext); err != nil {
			return err
		}
	}
	if as.o.Upper != "" {
		return c.setFlag("volatile")
	}
	return nil
}

func (as assembly) byFD(c *fsContext) error {
	for _, dir := range as.lower.dirs {
		if err := c.setFD("lowerdir+", dir); err != nil {
			return err
		}
	}
	return as.withUpper(c.setFD)
}

func (as assembly) byAppend(c *fsContext) error {
	set := func(key string, f *os.File) error { return c.setString(key, procPath(f)) }
	for _, dir := range as.lower.dirs {
		if err := set("lowerdir+", dir); err != nil {
			return err
		}
	}
	return as.withUpper(set)
}

// withUpper opens the directories of the writable layer while set runs.
func (as assembly) withUpper(set func(key string, f *os.File) error) error {
	if as.o.Upper == "" {
		return nil
	}
	for _, d := range [][2]string{{"upperdir", as.upper.dir}, {"workdir", as.upper.work}} {
		f, err := openPath(d[1], unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		err = set(d[0], f)
		_ = f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (as assembly) byString() error {
	var paths, opts []string
	for _, dir := range as.lower.dirs {
		paths = append(paths, procPath(dir))
	}
	opts = append(opts, "lowerdir="+strings.Join(paths, ":"))
	for _, o := range options {
		opts = append(opts, o[0]+"="+o[1])
	}
	if as.o.SELinuxContext != "" {
		opts = append(opts, contextOption+`="`+as.o.SELinuxContext+`"`)
	}
	var keep []*os.File
	defer func() {
		for _, f := range keep {
			_ = f.Close()
		}
	}()
	if as.o.Upper != "" {
		opts = append(opts, "volatile")
		for _, d := range [][2]string{{"upperdir", as.upper.dir}, {"workdir", as.upper.work}} {
			f, err := openPath(d[1], unix.O_DIRECTORY)
			if err != nil {
				return err
			}
			keep = append(keep, f)
			opts = append(opts, d[0]+"="+procPath(f))
		}
	}
	data := strings.Join(opts, ",")
	if len(data) >= os.Getpagesize() {
		return fmt.Errorf("%d layers need %d bytes of mount options, kernel %s takes %d (6.5 and later have no limit): %w",
			len(paths), len(data), kernelRelease(), os.Getpagesize()-1, errdefs.ErrFailedPrecondition)
	}
	var flags uintptr
	if as.readOnly() {
		flags |= unix.MS_RDONLY
	}
	if as.o.UserNS != nil {
		flags |= unix.MS_NODEV
	}
	if err := unix.Mount(areaSource, as.target, "overlay", flags, data); err != nil {
		return os.NewSyscallError("mount overlay", err)
	}
	return os.NewSyscallError("mount", unix.Mount("", as.target, "", unix.MS_PRIVATE, ""))
}
