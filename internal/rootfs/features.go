package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/pin"
)

// Features are what the kernel can do on the file system of the scratch directory, as found by Probe.
type Features struct {
	// IDMappedOverlay: layers can be id-mapped (Linux 5.19, and a file system that can be). Without it pods in user
	// namespaces have no root file systems.
	IDMappedOverlay bool
	// DetachedLowerFD: the kernel takes id-mapped layers by descriptor, without attaching them (Linux 6.15). Without it
	// MountRoot attaches them for a moment.
	DetachedLowerFD bool
	// IDMappedTmpfs: a tmpfs can be id-mapped (Linux 6.3). Secrets and service account tokens lie on one.
	IDMappedTmpfs bool
}

// Probe does each thing once, below a directory that it makes in scratch and removes. scratch should be on the file
// system of the layers. ns may be any user namespace except the host's.
//
// A feature is false only if the kernel refused the thing itself. After an error nothing is known, and the Features must
// not be used.
func Probe(scratch string, ns UserNS) (f Features, err error) {
	if err := ns.WithFD(checkUserNS); err != nil {
		return Features{}, fmt.Errorf("probe id-mapped mounts: %w", err)
	}
	dir, err := os.MkdirTemp(scratch, "pinfold-probe-")
	if err != nil {
		return Features{}, fmt.Errorf("probe id-mapped mounts: %w", err)
	}
	defer func() {
		// The temporary layer is the only thing ever mounted in dir.
		err = errors.Join(err, clearTree(filepath.Join(dir, lowerDir), 1), os.RemoveAll(dir))
		if err != nil {
			f, err = Features{}, fmt.Errorf("probe id-mapped mounts: %w", err)
		}
	}()
	for _, d := range []string{"a", "b"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			return f, err
		}
	}
	if f.IDMappedTmpfs, err = outcome(probeTmpfs(ns)); err != nil {
		return f, err
	}
	if f.DetachedLowerFD, err = outcome(probeOverlay(dir, ns, false)); err != nil {
		return f, err
	}
	if f.DetachedLowerFD {
		f.IDMappedOverlay = true
		return f, nil
	}
	f.IDMappedOverlay, err = outcome(probeOverlay(dir, ns, true))
	return f, err
}

// checkUserNS refuses a descriptor that is no user namespace to map to. Otherwise it would look as if the kernel could
// not map.
func checkUserNS(fd int) error {
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil {
		return os.NewSyscallError("ioctl NS_GET_NSTYPE", err)
	}
	if kind != unix.CLONE_NEWUSER {
		return fmt.Errorf("not a user namespace: %w", errdefs.ErrInvalidArgument)
	}
	var ours, theirs unix.Stat_t
	if err := errors.Join(unix.Stat("/proc/self/ns/user", &ours), unix.Fstat(fd, &theirs)); err != nil {
		return err
	}
	if ours.Ino == theirs.Ino && ours.Dev == theirs.Dev {
		return fmt.Errorf("the user namespace is the host's: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

// outcome tells "the kernel cannot" from "not known".
func outcome(err error) (bool, error) {
	switch {
	case err == nil:
		return true, nil
	case refusedForm(err), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP):
		return false, nil
	}
	return false, err
}

func probeTmpfs(ns UserNS) error {
	mnt, err := newTmpfs(0)
	if err != nil {
		// Nothing was id-mapped yet.
		return fmt.Errorf("tmpfs: %s", err.Error())
	}
	defer func() { _ = mnt.Close() }()
	return idmapTree(mnt, ns, unix.MS_PRIVATE)
}

// probeOverlay makes a read-only overlay of two layers in dir, without attaching it.
func probeOverlay(dir string, ns UserNS, attached bool) error {
	low, err := openLowers([]string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}, ns)
	if err != nil {
		return err
	}
	defer low.close()
	as := assembly{lower: low, o: &Overlay{UserNS: ns}, target: filepath.Join(dir, lowerDir)}
	if !attached {
		return as.probe(as.byFD)
	}
	if err := low.attach(as.target); err != nil {
		return err
	}
	err = as.probe(as.byAppend)
	if refusedForm(err) {
		// Before Linux 6.5: by mount(2), on the directory that the clones are attached in.
		err = as.byString()
	}
	return err
}

func (as assembly) probe(configure func(*fsContext) error) error {
	c, err := openFS("overlay")
	if err != nil {
		return err
	}
	defer c.close()
	if err := errors.Join(as.configure(c), configure(c)); err != nil {
		return err
	}
	mnt, err := c.mount(unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return err
	}
	return mnt.Close()
}

// RecursiveReadOnly reports whether the kernel can make a whole mount tree read-only (mount_setattr(2), Linux 5.12). It
// makes the call with an invalid descriptor: the error is ENOSYS if the kernel does not have it.
func RecursiveReadOnly() bool {
	err := unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	return !errors.Is(err, unix.ENOSYS)
}

// sample is any user namespace but the node's own.
func sample() (*pin.Set, error) {
	ids := []pin.IDMap{{ContainerID: 0, HostID: 1 << 20, Length: 1 << 16}}
	return pin.Create(&pin.Mappings{UIDs: ids, GIDs: ids}, pin.User)
}

// CheckUserNamespaces makes a user namespace and an idmapped overlay in it, with layers in dir. The error says why pods
// cannot have that. owner is not nil if the namespace belongs to the caller's user and not to a user of its own; see pin.Set.
func CheckUserNamespaces(dir string) (owner, err error) {
	set, err := sample()
	if err != nil {
		return nil, err
	}
	defer set.Close()
	features, err := Probe(dir, set.User)
	if err == nil && !features.IDMappedOverlay {
		err = fmt.Errorf("the kernel or the file system of %s does not support idmapped overlay layers", dir)
	}
	return set.OwnerErr, err
}

// IDMappable reports whether the mount at a path can be idmapped, so that a pod with a user namespace can have a volume on
// it. It does so with a detached copy of the mount, which is gone when the call returns. A file system whose server is
// gone can hold the call up.
func IDMappable(path string) (bool, error) {
	set, err := sample()
	if err != nil {
		return false, err
	}
	defer set.Close()
	dir, err := os.OpenFile(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	tree, err := cloneIDMapped(dir, set.User, false, unix.MS_PRIVATE)
	if err == nil {
		err = tree.Close()
	}
	return outcome(err)
}
