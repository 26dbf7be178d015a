#!/usr/bin/env bash
# crun.sh DIRECTORY: builds crun from Debian's source package and puts it into a directory. The version and
# the suite are in hack/versions.env: this machine's own Debian may have only a version that is too old for Pinfold.
#
# It installs nothing: apt uses its own directories, and the headers of libcap and libsystemd are unpacked there.
# The binary uses this machine's libraries. If it fails, the last line says why.
set -euo pipefail
# shellcheck source=hack/versions.env
source "$(dirname "$0")/versions.env"
# shellcheck source=hack/apt.sh
source "$(dirname "$0")/apt.sh"
into=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

die() {
	printf '%s\n' "$*" >&2
	exit 1
}

# Do not wait for a mirror that does not answer.
own_apt() { apt_in "$work/apt" apt-get -o Acquire::http::Timeout=20 -o Acquire::Retries=1 "$@"; }

fetch_source() {
	apt_source_in "$work/apt" deb-src "$CRUN_SUITE" || die "apt names no Debian mirror here"
	own_apt update
	(cd "$work" && own_apt source --tar-only --download-only crun) || die "the mirror does not have the source of crun in $CRUN_SUITE"
	tar -C "$work" -xf "$work"/crun_"$CRUN_VERSION".orig.tar.* || die "the source in $CRUN_SUITE is not that of crun $CRUN_VERSION"
}

# This machine's own headers, in the versions of its libraries' packages.
fetch_headers() {
	local deb
	(cd "$work" && { apt-get -qq -o APT::Sandbox::User=root download libcap-dev libsystemd-dev 2>/dev/null ||
		{ apt-get -qq update && apt-get -qq -o APT::Sandbox::User=root download libcap-dev libsystemd-dev; }; }) ||
		die "the mirror does not have libcap-dev and libsystemd-dev"
	for deb in "$work"/*.deb; do dpkg-deb -x "$deb" "$work/headers"; done
}

# The archives' shared libraries are links to files of packages that are installed.
link_libraries() {
	local link real
	libraries=$(dirname "$(find "$work/headers/usr/lib" -name libcap.a)")
	for link in "$libraries"/*.so; do
		real=$(ldconfig -p | awk -v name="$(basename "$link")" 'index($1, name ".") == 1 {print $NF; exit}')
		rm "$link"
		[[ ! $real ]] || ln -s "$real" "$link"
	done
}

build() {
	cd "$work/crun-$CRUN_VERSION"
	CPPFLAGS=-I$work/headers/usr/include LDFLAGS=-L$libraries CFLAGS='-O2 -g0' ./configure -q \
		--enable-embedded-yajl --disable-criu --disable-dl --disable-shared || die "crun: configure failed"
	make -s git-version.h
	make -s -j"$(nproc)" -C libocispec
	make -s -j"$(nproc)" crun || die "crun: make failed"
}

for command in apt-get dpkg-deb gcc make pkg-config python3; do
	command -v "$command" >/dev/null || die "there is no $command here"
done
fetch_source
fetch_headers
link_libraries
build
install -D "$work/crun-$CRUN_VERSION/crun" "$into/crun"
