#!/usr/bin/env bash
# Fetches the parts of the test VM into build/vm, once: QEMU, virtiofsd and Debian's cloud kernel, all
# from trixie. They are unpacked, not installed, and apt works in directories of its own below build/vm:
# the machine's packages, sources and lists stay as they are. Needs root and the machine's apt mirror.
set -euo pipefail
# shellcheck source=hack/vm/place.env
source "$(dirname "$0")/place.env"
# shellcheck source=hack/apt.sh
source "$(dirname "$0")/../apt.sh"
repo=$(cd "$(dirname "$0")/../.." && pwd)
suite=trixie
# The guest uses these from the host, as "command:package".
host_needs=(zstd:zstd xz:xz-utils mke2fs:e2fsprogs /lib/systemd/systemd:systemd dbus-daemon:dbus ip:iproute2 iptables:iptables ping:iputils-ping rpm:rpm)

die() {
	printf 'vm: %s\n' "$*" >&2
	exit 1
}

host_packages() {
	local need missing=()
	for need in "${host_needs[@]}"; do
		PATH=$PATH:/usr/sbin:/sbin command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
	done
	((${#missing[@]})) || return 0
	echo "vm: installing ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null && return
	apt-get update -qq && apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
}

# As if nothing were installed, so that apt fetches every library that QEMU needs in the version that QEMU was
# built with.
own_apt() { apt_in "$VM/apt" "$@"; }

# QEMU and virtiofsd run with their own loader and libraries: each gets a script of its name.
unpack_qemu() {
	local deb root=$VM/qemu
	own_apt apt-get install -y --no-install-recommends --download-only qemu-system-x86 virtiofsd >/dev/null
	mkdir -p "$root"
	for deb in "$VM"/apt/debs/*.deb; do
		case ${deb##*/} in
		debconf* | adduser* | passwd* | login* | base-passwd* | gcc* | ipxe* | libperl* | perl*) ;;
		*) dpkg-deb -x "$deb" "$root" ;;
		esac
	done
	[[ -e $root/lib64 ]] || ln -s usr/lib64 "$root/lib64"
	wrapper qemu-system-x86_64 "$root/usr/bin/qemu-system-x86_64 -L $root/usr/share/qemu -L $root/usr/share/seabios"
	wrapper virtiofsd "$root/usr/libexec/virtiofsd"
}

wrapper() {
	printf '#!/bin/sh\nexec %s --library-path %s %s "$@"\n' \
		"$VM/qemu/usr/lib64/ld-linux-x86-64.so.2" "$VM/qemu/usr/lib/x86_64-linux-gnu" "$2" >"$VM/$1"
	chmod +x "$VM/$1"
}

unpack_kernel() {
	local package version
	package=$(own_apt apt-cache depends linux-image-cloud-amd64 | awk '$1 == "Depends:" && $2 ~ /^linux-image-[0-9]/ {print $2; exit}')
	version=${package#linux-image-}
	mkdir -p "$VM/kernel" "$VM/kmod"
	(cd "$VM/apt" && own_apt apt-get download "$package")
	dpkg-deb -x "$VM"/apt/"$package"_*.deb "$VM/kernel"
	printf '%s\n' "$version" >"$VM/kernel-version"
	cp "$VM/kernel/boot/config-$version" "$VM/kernel-config" # kubeadm reads it
	(cd "$repo" && go run ./hack/vm/vmlinux "$VM/kernel/boot/vmlinuz-$version" "$VM/vmlinux")
	# Plain modules, so that insmod without xz support can read them.
	mkdir -p "$VM/modules/lib"
	mv "$VM/kernel/usr/lib/modules" "$VM/modules/lib/"
	find "$VM/modules" -name '*.ko.xz' -print0 | xargs -0 -P2 -n64 xz -d
	"$VM/kmod/bin/depmod" -b "$VM/modules" "$version"
}

# kmod runs in the guest with the host's libraries, so it is the host's version.
fetch_kmod() { apt-get -qq -o APT::Sandbox::User=root download kmod; }

unpack_kmod() {
	local program tool
	mkdir -p "$VM/kmod/bin"
	(cd "$VM/apt" && { fetch_kmod 2>/dev/null || { apt-get -qq update && fetch_kmod; }; })
	dpkg-deb -x "$VM"/apt/kmod_*.deb "$VM/kmod/package"
	program=$(find "$VM/kmod/package" -type f -name kmod -path '*bin/kmod')
	mv "$program" "$VM/kmod/bin/kmod"
	rm -r "$VM/kmod/package"
	for tool in depmod modprobe insmod; do ln -s kmod "$VM/kmod/bin/$tool"; done
}

[[ $(uname -m) == x86_64 ]] || die "the test VM is there for amd64 only"
[[ $(id -u) == 0 ]] || die "run as root"
[[ ! -e $VM/ready ]] || exit 0
began=$SECONDS
host_packages
rm -rf "$VM"
mkdir -p "$VM"
[[ $(findmnt -n -o TARGET -T "$VM") == / ]] || die "$VM is on a mount of its own; set PINFOLD_VM to a directory on the root file system"
apt_source_in "$VM/apt" deb "$suite" || die "apt names no Debian mirror here (apt-get indextargets)"
own_apt apt-get update
unpack_qemu
unpack_kmod
unpack_kernel
# The disk for writable layers and volumes. Each VM writes to a snapshot of it.
PATH=$PATH:/usr/sbin:/sbin mke2fs -q -t ext4 -O ^has_journal -F "$VM/scratch.ext4" 4G >/dev/null
rm -rf "$VM/apt" "$VM/kernel"
touch "$VM/ready"
echo "vm: kernel $(<"$VM/kernel-version") and QEMU are in $VM ($((SECONDS - began)) s)"
