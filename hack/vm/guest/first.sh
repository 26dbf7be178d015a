#!/bin/busybox sh
# shellcheck shell=dash
# The guest's process 1, at first: puts a writable layer in memory over the host's root file system (which
# comes by virtiofs, read-only), mounts the disk at /scratch and the exchange directory at /ctl, and becomes
# the init that the kernel command line names. boot.sh puts VM=… into the second line.
b=/bin/busybox
version=$($b cat "$VM/kernel-version")
modules=$VM/modules/lib/modules/$version
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev
"$VM/kmod/bin/insmod" "$modules/kernel/fs/overlayfs/overlay.ko"
$b mount -t tmpfs -o size=60% memory /mnt
$b mkdir /mnt/upper /mnt/work /mnt/root
$b mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work root /mnt/root || exec $b poweroff -f
cd /mnt/root || exec $b poweroff -f
$b mkdir -p hostroot scratch ctl "usr/lib/modules/$version"
for m in proc sys dev; do $b mount --move "/$m" "/mnt/root/$m"; done
$b mount --bind "$modules" "usr/lib/modules/$version"
for tool in bin/kmod sbin/modprobe sbin/insmod; do
	[ -e "usr/$tool" ] || $b ln -s "$VM/kmod/bin/kmod" "usr/$tool"
done
until [ -b dev/nvme0n1 ]; do $b sleep 0.1; done
$b mount -t ext4 dev/nvme0n1 scratch
$b mkdir -p scratch/tmp
$b mount -t virtiofs ctl ctl
$b pivot_root . hostroot
next=$($b sed -n 's/.*vmnext=\([^ ]*\).*/\1/p' /proc/cmdline)
exec $b chroot . /bin/bash "$next" </dev/console >/dev/console 2>&1
