# shellcheck shell=bash
# What the guides' tests have in common. They run in the VM, as root, from the repository's directory.

# fresh_machine installs Pinfold, runc and the CNI plugins as packages do. What needs a real file system is on the
# machine's disk: its root is an overlay in memory.
fresh_machine() {
	local dir
	for dir in pinfold kubelet etcd; do
		mkdir -p "/scratch/$dir" "/var/lib/$dir"
		mount --bind "/scratch/$dir" "/var/lib/$dir"
	done
	BINARIES=$PINFOLD_E2E_BIN PREFIX=/usr packaging/install.sh
	install -D -t /opt/cni/bin build/tools/cni/*
	install -D build/tools/runc /usr/sbin/runc
	mkdir -p /etc/cni/net.d
	systemctl daemon-reload
}

# load_images stands for pulls from registry.k8s.io and docker.io.
load_images() {
	local archive
	systemctl start pinfold
	for archive in build/tools/kubernetes/images/*.tar; do
		pinfold image load "$archive"
	done
}

# nothing_left fails if a pod's process, mount, network namespace or cgroup is left.
nothing_left() {
	local left
	left=$(
		grep -E ' /(run|var/lib)/pinfold/' /proc/self/mountinfo | grep -v ' /var/lib/pinfold ' || true
		ls /run/netns 2>/dev/null || true
		pgrep -a 'pinder|pinfoldd' || true
		find /sys/fs/cgroup -name '*pinfold-*' -o -name 'cri-containerd-*' -o -name 'kubepods*' || true
	)
	[[ ! $left ]] || { printf 'guide: something is left:\n%s\n' "$left" >&2; return 1; }
	echo "guide: nothing is left"
}

# stop_and_look ends the daemon, which has no pods any more.
stop_and_look() {
	systemctl stop pinfold
	nothing_left
}
