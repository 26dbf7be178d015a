#!/usr/bin/env bash
# install.sh: copies what `make build` built, and what belongs to it, below $DESTDIR. This is the one list of the
# files that Pinfold installs: `make install` and every package are made with it.
#
# Variables, with their defaults: DESTDIR='' PREFIX=/usr/local SYSCONFDIR=/etc ENVDIR=/etc/default
# ZSHDIR=$PREFIX/share/zsh/site-functions BINARIES=build/bin (where the binaries are), COMMANDS=$BINARIES (where
# binaries for this machine are, which write the completions). A configuration file that exists is kept.
set -euo pipefail
cd "$(dirname "$0")/.."

destdir=${DESTDIR:-}
prefix=${PREFIX:-/usr/local}
sysconf=${SYSCONFDIR:-/etc}
envdir=${ENVDIR:-$sysconf/default}
zsh=${ZSHDIR:-$prefix/share/zsh/site-functions}
binaries=${BINARIES:-build/bin}
commands=${COMMANDS:-$binaries}

put() { install -D -m "$1" "$2" "$destdir$3"; }

# The content comes from standard input.
write() {
	mkdir -p "$(dirname "$destdir$1")"
	cat >"$destdir$1"
	chmod 0644 "$destdir$1"
}

config() { [[ -e $destdir$2 ]] || put "${3:-0644}" "$1" "$2"; }

for binary in pinfoldd pinder pinfold; do
	[[ -x $binaries/$binary ]] || { echo "install: $binaries/$binary is missing: run make build" >&2; exit 1; }
	put 0755 "$binaries/$binary" "$prefix/bin/$binary"
done

sed "s|/usr/local/bin/|$prefix/bin/|" contrib/systemd/pinfold.service | write "$prefix/lib/systemd/system/pinfold.service"
put 0644 packaging/tmpfiles.conf "$prefix/lib/tmpfiles.d/pinfold.conf"
put 0644 packaging/modules-load.conf "$prefix/lib/modules-load.d/pinfold.conf"
# The number is low so that a file of the operator's comes later and counts.
put 0644 packaging/sysctl.conf "$prefix/lib/sysctl.d/50-pinfold.conf"

config packaging/config.toml "$sysconf/pinfold/config.toml"
# It may get passwords of proxies. Only systemd reads it.
config packaging/environment "$envdir/pinfold" 0600

put 0644 contrib/cni/10-pinfold.conflist "$prefix/share/pinfold/cni/10-pinfold.conflist"
for page in docs/man/*.[1-8]; do
	gzip -9nc "$page" | write "$prefix/share/man/man${page##*.}/${page##*/}.gz"
done
for command in pinfold pinfoldd; do
	"$commands/$command" completion bash | write "$prefix/share/bash-completion/completions/$command"
	"$commands/$command" completion zsh | write "$zsh/_$command"
	"$commands/$command" completion fish | write "$prefix/share/fish/vendor_completions.d/$command.fish"
done
