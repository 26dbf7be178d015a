package doctor

import (
	"context"
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/mountinfo"
	"github.com/pinfold-run/pinfold/internal/rootfs"
)

// mounts are those of the node's own mount table.
func (n *Node) mounts() []mountinfo.Mount {
	found, _ := mountinfo.Parse(strings.NewReader(n.read("/proc/self/mountinfo")), func(mountinfo.Mount) bool { return true })
	return found
}

// mountOf is the mount that a path is on.
func mountOf(path string, all []mountinfo.Mount) (found mountinfo.Mount) {
	for _, m := range all {
		if within(path, m.Point) && len(m.Point) >= len(found.Point) {
			found = m
		}
	}
	return found
}

func within(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// places are the directories that pods live in, one for each file system.
func (n *Node) places() []string {
	all := []string{"/var/lib/kubelet", "/var/log"}
	if n.Config != nil {
		all = append([]string{n.Config.Root}, all...)
	}
	var found []string
	seen, mounts := map[string]bool{}, n.mounts()
	for _, dir := range all {
		dir = n.nearest(dir)
		if on := mountOf(dir, mounts).Point; !seen[on] {
			seen[on] = true
			found = append(found, dir)
		}
	}
	return found
}

// fileSystems looks at the mounts that pods live on, and at those that volumes may come from.
func fileSystems(ctx context.Context, n *Node) findings {
	all := n.mounts()
	if len(all) == 0 {
		return unknown("the mount table cannot be read")
	}
	var f findings
	if n.Config != nil {
		f.onRoot(n, mountOf(n.nearest(n.Config.Root), all))
	}
	if n.probe.euid() != 0 {
		f.add(Unknown, "", "which file systems can be idmapped is not known: only root can try it")
		return f
	}
	seen := map[string]bool{}
	for _, m := range all {
		if ctx.Err() != nil {
			break
		}
		// Pods have no volumes on the kernel's own file systems.
		if seen[m.Type] || slices.Contains(strings.Fields("proc sysfs cgroup cgroup2 devtmpfs devpts mqueue bpf debugfs tracefs securityfs pstore configfs fusectl nsfs overlay autofs binfmt_misc rpc_pipefs hugetlbfs efivarfs ramfs squashfs"), m.Type) {
			continue
		}
		seen[m.Type] = true
		err := n.probe.idmapped(m.Point)
		if errors.Is(err, errNotIDMapped) {
			f.add(Warning, "Use such volumes in pods without a user namespace (hostUsers: true) only, or use a later kernel.",
				"%s (%s) cannot be idmapped: pods with user namespaces cannot have volumes on it", m.Point, m.Type)
		} else if err != nil {
			f.add(Unknown, "", "%s (%s): %v", m.Point, m.Type, err)
		}
	}
	return f.or("volumes of pods with user namespaces can be on all file systems of the node")
}

func (f *findings) onRoot(n *Node, m mountinfo.Mount) {
	options := strings.Split(m.Options, ",")
	for _, bad := range []string{"noexec", "nosuid", "nodev"} {
		level := Error
		if bad != "noexec" {
			level = Warning
		}
		if slices.Contains(options, bad) {
			f.add(level, "Mount it without that option, or give Pinfold another `root`.", "%s, where images and records are, is mounted %s", m.Point, bad)
		}
	}
	if slices.Contains(options, "ro") {
		f.add(Error, "Mount it writable; the kernel's log says if it found errors.", "%s, where images and records are, is read-only", m.Point)
	}
	if m.Type == "overlay" || strings.HasPrefix(m.Type, "nfs") || m.Type == "vfat" || m.Type == "fuseblk" {
		f.add(Error, "Give Pinfold a `root` on a local file system (ext4, xfs, btrfs).", "%s, where images and records are, is %s: layers cannot be on it", m.Point, m.Type)
	}
}

const (
	// imageSpace and inodes are the shares, in percent, below which a kubelet evicts pods by default.
	imageSpace, inodeSpace = 15, 5
	// leastSpace is less than most images, in bytes.
	leastSpace = 2 << 30
)

func disk(_ context.Context, n *Node) findings {
	var f findings
	for _, dir := range n.places() {
		s, err := n.probe.statfs(n.path(dir))
		if err != nil {
			f.add(Unknown, "", "%s: %v", dir, err)
			continue
		}
		free := s.Bavail * uint64(s.Bsize)
		switch {
		case free < leastSpace:
			f.add(Error, "Free some: `pinfold image list` shows what images take.", "%s has %d MiB free", dir, free>>20)
		case s.Blocks > 0 && s.Bavail*100/s.Blocks < imageSpace:
			f.add(Warning, "Free some: the kubelet evicts pods.", "%s has %d %% free", dir, s.Bavail*100/s.Blocks)
		}
		if s.Files > 0 && s.Ffree*100/s.Files < inodeSpace {
			f.add(Warning, "Remove small files: the kubelet evicts pods.", "%s has %d %% of its inodes free", dir, s.Ffree*100/s.Files)
		}
	}
	return f.or("enough space and inodes in %s", strings.Join(n.places(), ", "))
}

// clock looks whether the time is right: certificates, tokens and logs depend on it.
func clock(_ context.Context, n *Node) findings {
	var f findings
	ok, err := n.probe.clock()
	switch {
	case err != nil:
		return unknown("%v", err)
	case !ok:
		f.add(Warning, "Run chrony or systemd-timesyncd.", "the clock is not synchronized")
	}
	return f.or("the clock is synchronized")
}

// probeClock asks the kernel (adjtimex(2)): without a time server it is in state STA_UNSYNC.
func probeClock() (bool, error) {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		return false, err
	}
	return t.Status&unix.STA_UNSYNC == 0, nil
}

func statfs(path string) (s unix.Statfs_t, err error) {
	err = unix.Statfs(path, &s)
	return s, err
}

// errNotIDMapped: the kernel cannot idmap a mount of that file system.
var errNotIDMapped = errors.New("cannot be idmapped")

func probeUserNamespaces(scratch string) error {
	_, err := rootfs.CheckUserNamespaces(scratch)
	return err
}

func probeIDMapped(path string) error {
	ok, err := rootfs.IDMappable(path)
	if err == nil && !ok {
		return errNotIDMapped
	}
	return err
}
