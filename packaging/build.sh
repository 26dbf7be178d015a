#!/usr/bin/env bash
# `make packages`: builds $KINDS (deb rpm tarball) for the architectures in $ARCHES (amd64 arm64) into $OUT
# (build/packages), with SBOMs, and SHA256SUMS of all. The same commit gives the same bytes. $VERSION is the semantic
# version; by default it is the tree's.
set -euo pipefail
cd "$(dirname "$0")/.."

repo=$PWD
semver=${VERSION:-$(hack/version.sh)}
version=$(packaging/version.sh "$semver")
out=$(realpath -m "${OUT:-build/packages}")
nfpm=$PWD/build/tools/nfpm
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export GOFLAGS=-buildvcs=false GOOS=linux CGO_ENABLED=0 LC_ALL=C TZ=UTC
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The binaries of each architecture; those of this machine write the completions.
compile() {
	mkdir -p "$work/bin-$1"
	GOARCH=$1 go build -trimpath -ldflags "-s -w -X main.version=$semver" -o "$work/bin-$1/" ./cmd/pinfoldd ./cmd/pinder ./cmd/pinfold
}

scripts() {
	local script
	mkdir -p "$work/scripts"
	for script in preinst postinst prerm postrm; do
		{ printf '#!/bin/sh\nset -e\n\n'; cat packaging/scripts/lib.sh; echo; cat "packaging/scripts/$script"; } >"$work/scripts/$script"
	done
}

# nfpm writes the changelog of either kind of package from this.
changelog() {
	printf -- '- semver: "%s"\n  date: %s\n  packager: %s\n  deb:\n    urgency: medium\n    distributions: [unstable]\n  changes:\n    - note: "Pinfold %s; see changelog.gz."\n' \
		"$version-1" "$(date -u -d "@$SOURCE_DATE_EPOCH" +%FT%TZ)" "Pinfold maintainers <pinfold-run@users.noreply.github.com>" \
		"$semver" >"$work/changelog.yaml"
}

# documents ROOT: what the packages have beside the files of install.sh.
documents() {
	local doc=$1/usr/share/doc/pinfold
	mkdir -p "$doc"
	gzip -9nc CHANGELOG.md >"$doc/changelog.gz"
	gzip -9nc "$work/third-party.txt" >"$doc/third-party.txt.gz"
	gzip -9nc README.md >"$doc/README.md.gz"
}

# stage ROOT ARCH VARIABLE=VALUE…: the tree of a package.
stage() {
	local root=$1 arch=$2
	shift 2
	env DESTDIR="$root" BINARIES="$work/bin-$arch" COMMANDS="$work/bin-$host" "$@" packaging/install.sh
}

date_all() { find "$1" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +; }

package() {
	local kind=$1 arch=$2 root=$work/$1-$2
	date_all "$root"
	chmod -R go-w "$root"
	ln -sfn "${root##*/}" "$work/root"
	(cd "$work" && ARCH=$arch VERSION=$version "$nfpm" package --config "$repo/packaging/nfpm.yaml" --packager "$kind" --target "$out/") >/dev/null
}

deb() {
	local root=$work/deb-$1
	stage "$root" "$1" PREFIX=/usr ZSHDIR=/usr/share/zsh/vendor-completions
	documents "$root"
	install -D -m 0644 packaging/copyright "$root/usr/share/doc/pinfold/copyright"
	install -D -m 0644 packaging/lintian-overrides "$root/usr/share/lintian/overrides/pinfold"
	package deb "$1"
}

rpm() {
	local root=$work/rpm-$1
	stage "$root" "$1" PREFIX=/usr ENVDIR=/etc/sysconfig
	documents "$root"
	install -D -m 0644 LICENSE "$root/usr/share/licenses/pinfold/LICENSE"
	package rpm "$1"
}

# The archive is unpacked below /usr/local; the configuration files are examples in it.
tarball() {
	local name=pinfold-$semver-linux-$1 root=$work/tar-$1 top=$work/tar-$1/usr/local
	stage "$root" "$1" PREFIX=/usr/local
	mv "$root/etc/pinfold/config.toml" "$top/share/pinfold/config.toml"
	mv "$root/etc/default/pinfold" "$top/share/pinfold/environment"
	cp LICENSE README.md CHANGELOG.md "$work/third-party.txt" "$top/share/pinfold/"
	mv "$top" "$root/$name"
	date_all "$root/$name"
	tar -C "$root" --sort=name --owner=0 --group=0 --numeric-owner --mode=go-w --format=gnu -cf - "$name" | gzip -9n >"$out/$name.tar.gz"
}

[[ -x $nfpm ]] || { echo "packages: no nfpm in build/tools (hack/tools.sh packages)" >&2; exit 1; }
rm -rf "$out"
mkdir -p "$out"
host=$(go env GOHOSTARCH)
compile "$host"
scripts
changelog
go build -trimpath -o "$work/bom" ./hack/bom
"$work/bom" licenses >"$work/third-party.txt"
for arch in ${ARCHES:-amd64 arm64}; do
	[[ $arch == "$host" ]] || compile "$arch"
	for kind in ${KINDS:-deb rpm tarball}; do "$kind" "$arch"; done
	GOARCH=$arch "$work/bom" sbom "$semver" "$work/bin-$arch"/{pinfoldd,pinder,pinfold} >"$out/pinfold-$semver-linux-$arch.cdx.json"
done
(cd "$out" && sha256sum -- * >SHA256SUMS)
echo "packages: $semver in $out"
