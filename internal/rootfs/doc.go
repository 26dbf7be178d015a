// Package rootfs mounts what a container sees as files: an overlay as its root file system, with layers
// id-mapped to the pod's user namespace, id-mapped volumes, and /dev/shm. Only this package and package pin
// mount.
//
// # Layout
//
// All mounts lie below one Area, and those of one ID below one directory. So the ID alone is enough to find and
// to remove them:
//
//	<area>/<id>/rootfs    root file system            (MountRoot)
//	<area>/<id>/shm       tmpfs                       (Shm)
//	<area>/<id>/vol/<n>   id-mapped volume            (IDMapVolume), image (MountImage)
//	<area>/<id>/bind/<n>  what a runtime binds, locked  (LockBinds)
//	<area>/<id>/hidden/*  an empty directory and file, to cover what a volume may not show
//	<area>/<id>/image/<n> an image, while a part of it is being mounted as a volume
//	<area>/<id>/lower/<n> layers, during MountRoot on kernels that want them attached
//
// Only root can pass through <area>/<id>, and the group of the pod's mapped root if the pod has a user namespace
// (Admit). Otherwise any user of the host could run the set-user-ID programs of an image.
//
// # Two mounts make the area
//
// The lower one is an unbindable tmpfs. A recursive bind of a directory above it leaves out the tmpfs and all that is
// mounted on it (mount_namespaces(7), MS_UNBINDABLE). So a pod with hostPath "/" cannot copy other pods' mounts and
// keep them busy.
//
// The upper one is a shared tmpfs at the same path. It holds the directories of the IDs. It is shared because a new
// mount namespace gets copies of unbindable mounts too: that of a systemd service with PrivateTmp=, or of a runtime
// that is starting a container. When we unmount below a shared mount, those copies are unmounted with it. Otherwise the
// device of a volume would stay busy as long as the service runs. Each mount on top of it is private.
//
// # Overlay options
//
//   - volatile: a container's layer is of no use after a reboot, and is mounted once. So nothing in it
//     has to reach the disk. Without this option every fsync in a container is one on the node's
//     disk, and each unmount syncs the whole file system of the upper directory. On a busy node
//     that writes all dirty pages. BenchmarkUnmountWithDirtyPages and BenchmarkFsyncInContainer
//     measure it. The price: an upper directory can be mounted only once. So MountRoot takes only
//     new or empty directories.
//   - index=off, metacopy=off, redirect_dir=nofollow, xino=off: the defaults differ between kernels, so
//     they are set to what images are tested with everywhere. index and metacopy are for upper
//     directories that are mounted more than once. With nofollow and metacopy=off the attributes
//     trusted.overlay of a layer cannot redirect a look-up. With xino, 32-bit programs would get
//     EOVERFLOW if the layers lie on several file systems.
//   - userxattr is not used: it is for mounts without privilege.
//
// Methods of an Area may run at the same time for different IDs. For one ID the caller orders them.
package rootfs
