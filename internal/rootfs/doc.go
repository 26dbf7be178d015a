// Package rootfs builds what a container sees as files: overlay root file systems with layers
// id-mapped to the pod's user namespace, id-mapped volumes, and /dev/shm. With package pin it is
// the only one that mounts.
//
// # Layout
//
// Everything is mounted below one Area, and everything of one id below one directory, so that the
// id alone is enough to find and to undo it:
//
//	<area>/<id>/rootfs    root file system            (MountRoot)
//	<area>/<id>/shm       tmpfs                       (Shm)
//	<area>/<id>/vol/<n>   id-mapped volume            (IDMapVolume), image (MountImage)
//	<area>/<id>/bind/<n>  what a runtime binds, locked  (LockBinds)
//	<area>/<id>/hidden/*  an empty directory and file, to cover what a volume may not show
//	<area>/<id>/image/<n> an image, while a part of it is being mounted as a volume
//	<area>/<id>/lower/<n> layers, during MountRoot on kernels that want them attached
//
// <area>/<id> is passable for root only, and for the group of the pod's mapped root where there is a user
// namespace (Admit): without that any user of the host could run the set-user-ID programs of an image.
//
// # Two mounts make the area
//
// An unbindable tmpfs lies at the bottom: a recursive bind of any directory above it skips it and
// all that is on it (mount_namespaces(7), MS_UNBINDABLE), so a pod with hostPath "/" cannot copy
// other pods' mounts and keep them busy. A second, shared tmpfs lies on top of it at the same path
// and carries the ids. It is shared because a new mount namespace (a systemd service with
// PrivateTmp=, a runtime in the middle of a start) gets copies of unbindable mounts too: from a
// shared mount our unmounting reaches those copies, and a volume's device does not stay busy for
// the life of a foreign service. What is mounted on top is private, each by itself.
//
// # Overlay options
//
//   - volatile: a container's layer never outlives the boot, let alone is mounted twice, so nothing
//     in it need ever reach the disk. Without it every fsync in a container is one on the node's
//     disk, and each unmount syncs the whole file system of the upper directory, which on a busy
//     node takes as long as all its dirty pages do. BenchmarkUnmountWithDirtyPages
//     and BenchmarkFsyncInContainer measure it.
//     The price, that the same upper directory can never be mounted again, is made a rule:
//     MountRoot takes new or empty directories only.
//   - index=off, metacopy=off, redirect_dir=nofollow, xino=off: the kernel's builders choose the
//     defaults, so they are fixed here to what images are tested with everywhere. index and
//     metacopy serve layers mounted more than once; nofollow and metacopy=off also keep a layer
//     from redirecting a look-up by trusted.overlay attributes of its own; xino would give 32-bit
//     programs EOVERFLOW where the layers lie on several file systems.
//   - userxattr is for mounts without privilege, which these are not.
//
// Methods of an Area may run at the same time for different ids. For one id the caller orders them.
package rootfs
