#!/usr/bin/env bash
# in-vm.sh deb|rpm DIRECTORY: the life of the packages on a machine: install, upgrade, downgrade, remove, purge, while a
# pod runs. `hack/vm/test.sh install` runs it in the VM, with systemd as process 1. DIRECTORY has the packages of two
# versions (1.0.0 and 1.1.0), an image (image.tar), runc and the CNI plugins (cni). Never run it on a machine of your own.
#
# What it does and what the machine says is printed as a transcript.
set -euo pipefail

kind=$1 dir=$2
# The plugins and the runtime stand for the packages that an operator installs beside ours.
mkdir -p /opt/cni/bin /usr/local/sbin
cp "$dir"/cni/* /opt/cni/bin/
cp "$dir/runc" /usr/local/sbin/runc
# The store is a disk of its own, as on many nodes. (Layers cannot lie on the VM's root, which is an overlay itself.)
mkdir -p /scratch/pinfold /var/lib/pinfold
mount --bind /scratch/pinfold /var/lib/pinfold
# Images of containers leave out manuals and documents.
rm -f /etc/dpkg/dpkg.cfg.d/docker*
# The index of all manuals of the machine takes minutes on an emulated processor.
rm -f /var/lib/man-db/auto-update
began=$SECONDS

title() { printf '\n== %s (%d s)\n' "$*" $((SECONDS - began)); }
run() {
	printf '# %s\n' "$*"
	"$@"
}
fail() {
	printf 'FAILED: %s\n' "$*"
	systemctl status --no-pager pinfold 2>&1 | tail -n 20 || true
	journalctl --no-pager -u pinfold 2>&1 | tail -n 30 || true
	exit 1
}
# expect TEXT COMMAND…: the command succeeds, and prints TEXT.
expect() {
	local text=$1 output
	shift
	printf '# %s\n' "$*"
	output=$("$@" 2>&1) || { echo "$output"; fail "$* fails"; }
	echo "$output"
	[[ $output == *"$text"* ]] || fail "$* does not say: $text"
}
# refused TEXT COMMAND…: the command fails, and prints TEXT.
refused() {
	local text=$1 output
	shift
	printf '# %s\n' "$*"
	! output=$("$@" 2>&1) || { echo "$output"; fail "$* succeeds"; }
	echo "$output"
	[[ $output == *"$text"* ]] || fail "$* does not say: $text"
}
state() { systemctl is-active pinfold || true; }
becomes() {
	local i
	for ((i = 0; i < 300; i++)); do
		[[ $(state) != "$1" ]] || return 0
		sleep 0.1
	done
	fail "the service is $(state), not $1"
}
answers() {
	local i
	becomes active
	for ((i = 0; i < 300; i++)); do
		pinfold version >/dev/null 2>&1 && return 0
		sleep 0.1
	done
	fail "the daemon does not answer"
}

pod_pid() { pgrep -xf 'sleep 86399' || true; }
pinder_pid() { pgrep -f '^pinder --state /run/pinfold' | head -n 1; }
# A program that was replaced shows as deleted.
pinder_is_current() { [[ $(readlink "/proc/$(pinder_pid)/exe") == /usr/bin/pinder ]]; }
same_pod() {
	[[ $(pod_pid) == "$pod" ]] || fail "the pod's process is '$(pod_pid)', not $pod"
	echo "the pod's process is still $pod"
}
current_pinder() {
	local i
	for ((i = 0; i < 100; i++)); do
		pinder_is_current && break
		sleep 0.1
	done
	pinder_is_current || fail "pinder runs $(readlink "/proc/$(pinder_pid)/exe")"
	[[ $(pinder_pid) == "$1" ]] || fail "pinder is another process, $(pinder_pid)"
	echo "pinder is still process $1, with the program of the package"
}

start_pod() {
	run cp /usr/share/pinfold/cni/10-pinfold.conflist /etc/cni/net.d/
	expect busybox pinfold image load "$dir/image.tar"
	run pinfold run --keep --name web docker.io/library/busybox:demo -- sleep 86399
	expect web pinfold ps
	expect "inet 10.210." pinfold exec web -- ip -4 address show eth0
	pod=$(pod_pid)
	[[ $pod ]] || fail "no process of the pod"
	pinder=$(pinder_pid)
}

# Nothing of Pinfold is left in the kernel or on the disk.
nothing_is_left() {
	local left=''
	left+=$(grep -E ' (/run/pinfold|/var/lib/pinfold/|/run/netns)' /proc/self/mountinfo || true)
	left+=$(pgrep -a 'pinfoldd|pinder' || true)
	left+=$(ls -d /run/netns/pinfold-* 2>/dev/null || true)
	left+=$(find /sys/fs/cgroup -type d '(' -name '*pinfold*' -o -name 'cri-containerd-*' ')' 2>/dev/null || true)
	left+=$(ls -d /sys/class/net/pinfold0 /run/pinfold "$@" 2>/dev/null || true)
	left+=$(ls -A /var/lib/pinfold)
	[[ ! $left ]] || fail "left behind: $left"
	echo "no mount, process, network namespace, cgroup, bridge or directory is left"
}

version() { /usr/bin/pinfoldd --version; }

deb() {
	local old new
	old=$(ls "$dir"/pinfold_1.0.0-*.deb) new=$(ls "$dir"/pinfold_1.1.0-*.deb)

	title "install where policy-rc.d forbids to start services"
	printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
	chmod +x /usr/sbin/policy-rc.d
	expect "policy-rc.d returned 101" dpkg -i "$old"
	[[ $(state) == inactive ]] || fail "the service is $(state)"
	expect enabled systemctl is-enabled pinfold
	rm /usr/sbin/policy-rc.d
	run systemd-analyze verify --man=no pinfold.service
	for page in 1/pinfold 5/pinfold.toml 8/pinder 8/pinfoldd; do
		[[ -s /usr/share/man/man${page%/*}/${page#*/}.${page%/*}.gz ]] || fail "no manual page ${page#*/}"
	done
	run systemctl start pinfold
	answers
	[[ $(sysctl -n net.ipv4.ip_forward) == 1 && $(sysctl -n fs.inotify.max_user_instances) == 8192 ]] || fail "sysctls are not set"
	[[ -d /sys/module/br_netfilter && -d /sys/module/overlay ]] || fail "modules are not loaded"

	title "a pod"
	start_pod

	title "upgrade while the pod runs"
	expect "Setting up pinfold (1.1.0-1)" dpkg -i "$new"
	answers
	[[ $(version) == 1.1.0 ]] || fail "the version is $(version)"
	same_pod
	current_pinder "$pinder"
	expect hello pinfold exec web -- echo hello

	title "downgrade while the daemon is stopped: it stays stopped"
	run systemctl stop pinfold
	expect "downgrading" dpkg -i "$old"
	[[ $(state) == inactive ]] || fail "the service is $(state)"
	same_pod
	run systemctl start pinfold
	answers
	[[ $(version) == 1.0.0 ]] || fail "the version is $(version)"
	same_pod
	current_pinder "$pinder"
	expect hello pinfold exec web -- echo hello

	title "remove while the pod runs: it says what stays"
	expect "1 pod(s) keep running" dpkg -r pinfold
	same_pod
	[[ ! -e /usr/bin/pinfoldd && -e /etc/pinfold/config.toml ]] || fail "the binaries are there, or the configuration is gone"

	title "purge while the pod runs: it is refused"
	refused "pods are alive" dpkg -P pinfold
	same_pod
	[[ -d /var/lib/pinfold/pods ]] || fail "the records are gone"

	title "install again: the service starts, and the pod is known"
	expect "Setting up pinfold (1.0.0-1)" dpkg -i "$old"
	answers
	expect web pinfold ps
	same_pod
	current_pinder "$pinder"

	title "remove the pod, then purge"
	run pinfold rm --time 0 web
	run dpkg -P pinfold
	nothing_is_left /etc/pinfold /etc/default/pinfold /usr/bin/pinder /etc/systemd/system/multi-user.target.wants/pinfold.service
}

rpm() {
	local old new
	old=$(ls "$dir"/pinfold-1.0.0-*.rpm) new=$(ls "$dir"/pinfold-1.1.0-*.rpm)
	rpm() { command rpm --dbpath /scratch/rpmdb "$@"; }
	rpm --initdb

	title "install: the presets decide whether it is enabled, and it does not start"
	run rpm -i --nodeps "$old"
	[[ $(state) == inactive ]] || fail "the service is $(state)"
	run systemctl enable --now pinfold
	answers

	title "a pod"
	start_pod

	title "upgrade while the pod runs"
	run rpm -U --nodeps "$new"
	answers
	[[ $(version) == 1.1.0 ]] || fail "the version is $(version)"
	same_pod
	current_pinder "$pinder"
	expect hello pinfold exec web -- echo hello

	title "downgrade"
	echo 'log_level = "DEBUG"' >>/etc/pinfold/config.toml
	run rpm -U --oldpackage --nodeps "$old"
	answers
	[[ $(version) == 1.0.0 ]] || fail "the version is $(version)"
	same_pod
	current_pinder "$pinder"
	grep -q DEBUG /etc/pinfold/config.toml || fail "the operator's configuration is lost"

	title "remove the pod, then the package"
	run pinfold rm --time 0 web
	expect "rm -rf /var/lib/pinfold" rpm -e pinfold
	[[ $(state) == inactive && ! -e /etc/systemd/system/multi-user.target.wants/pinfold.service ]] || fail "the service is $(state), or enabled"
	run find /var/lib/pinfold -xdev -mindepth 1 -delete
	run rm -rf /run/pinfold
	run ip link delete pinfold0
	nothing_is_left /usr/bin/pinder /usr/lib/systemd/system/pinfold.service
	[[ -e /etc/pinfold/config.toml.rpmsave ]] || fail "the operator's configuration was not kept"
}

case $kind in
deb | rpm) "$kind" ;;
*) echo "usage: in-vm.sh deb|rpm DIRECTORY" >&2 && exit 2 ;;
esac
title "$kind: ok"
