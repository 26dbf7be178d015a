#!/usr/bin/env bash
# boot.sh [-s] [-t SECONDS] COMMAND: runs a shell command as root in a new VM. It prints the command's output
# and returns its exit status.
#
#   -s          systemd is process 1, not the minimal init
#   -t SECONDS  the time the VM may take (600)
#
# The kernel is Debian's 6.12 with a pure cgroup v2 hierarchy. The root file system is a copy-on-write view of
# this machine's, without what is mounted on it; $TMPDIR is on ext4, as the upper side of an overlay mount
# must be. The guest has only its own network. $PINFOLD_VM_CPUS and $PINFOLD_VM_MEMORY size it (2, 4G).
# Exit status 124: the time is up; 125: the VM itself failed, or did not come up in $PINFOLD_VM_BOOT_TIMEOUT
# seconds (240), twice.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=hack/vm/place.env
source "$here/place.env"

init=minimal limit=600
while getopts st: option; do
	case $option in
	s) init=systemd ;;
	t) limit=$OPTARG ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
(($# == 1)) || { echo "usage: boot.sh [-s] [-t SECONDS] COMMAND" >&2; exit 2; }
[[ -e $VM/ready ]] || { echo "vm: not set up; hack/vm/setup.sh does it" >&2; exit 2; }
cpus=${PINFOLD_VM_CPUS:-2} memory=${PINFOLD_VM_MEMORY:-4G} boot_limit=${PINFOLD_VM_BOOT_TIMEOUT:-240}
run='' processes=()

# This kills only what this script started. The reader of the output ends when no process has the output open.
clean_up() {
	local pid
	exec 3>&-
	for pid in "${processes[@]}"; do kill "$pid" 2>/dev/null || true; done
	wait 2>/dev/null || true
	[[ -z $run ]] || rm -rf "$run"
	processes=() run=''
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

# The command and the script that runs it, in the directory that host and guest share. The output has its own
# virtio port, so that it does not contain the kernel's messages.
write_exchange() {
	mkdir -p "$run/ctl" "$run/root"
	printf '%s\n' "$1" >"$run/ctl/command"
	cat >"$run/ctl/go" <<-'GO'
		for port in /sys/class/virtio-ports/*; do
			read -r name <"$port/name"
			[[ $name != out ]] || out=/dev/${port##*/}
		done
		cd /
		touch /ctl/started
		setsid -w bash /ctl/command >"$out" 2>&1 </dev/null
		echo $? >/ctl/status
	GO
	sed "2i VM=$VM" "$here/guest/first.sh" >"$run/first"
	chmod +x "$run/first"
	mkfifo "$run/out"
}

# The guest's root is a bind mount of ours, without what is mounted below it, in a mount namespace that ends with virtiofsd.
start_virtiofsd() {
	# shellcheck disable=SC2016
	unshare --mount --propagation private sh -c \
		'mount --bind / "$1" && exec "$2" --socket-path="$3" --shared-dir="$1" --readonly --cache=always --sandbox=chroot --inode-file-handles=prefer --modcaps=+dac_read_search --no-announce-submounts' \
		sh "$run/root" "$VM/virtiofsd" "$run/root.sock" 2>"$run/root.log" &
	processes+=($!)
	"$VM/virtiofsd" --socket-path="$run/ctl.sock" --shared-dir="$run/ctl" --cache=auto --sandbox=chroot 2>"$run/ctl.log" &
	processes+=($!)
	local i
	for ((i = 0; i < 200; i++)); do
		[[ ! -S $run/root.sock || ! -S $run/ctl.sock ]] || return 0
		sleep 0.05
	done
	echo "vm: virtiofsd does not start:" >&2
	cat "$run"/*.log >&2
	return 1
}

# In the background, so that this script handles a signal at once.
start_qemu() {
	timeout -k 5 "$limit" "$VM/qemu-system-x86_64" -M q35 -accel tcg,thread=multi -cpu max -smp "$cpus" -m "$memory" \
		-nodefaults -no-user-config -display none -no-reboot \
		-object "memory-backend-memfd,id=memory,size=$memory,share=on" -numa node,memdev=memory \
		-kernel "$VM/vmlinux" \
		-append "console=ttyS0 quiet panic=-1 mitigations=off nokaslr root=hostroot rootfstype=virtiofs ro init=$run/first vmnext=$here/guest/$init.sh cgroup_no_v1=all hugepages=4" \
		-chardev "socket,id=root,path=$run/root.sock" -device vhost-user-fs-pci,chardev=root,tag=hostroot \
		-chardev "socket,id=ctl,path=$run/ctl.sock" -device vhost-user-fs-pci,chardev=ctl,tag=ctl \
		-drive "if=none,id=scratch,format=raw,snapshot=on,file=$VM/scratch.ext4" -device nvme,drive=scratch,serial=scratch \
		-device virtio-serial-pci -chardev "file,id=out,path=$run/out" -device virtserialport,chardev=out,name=out \
		-chardev "file,id=console,path=$run/console" -serial chardev:console </dev/null 2>"$run/qemu.log" &
	machine=$!
	processes+=("$machine")
}

# Fails if the machine ends, or is ended here, before the command began.
await_command() {
	local began=$SECONDS
	until [[ -e $run/ctl/started ]]; do
		kill -0 "$machine" 2>/dev/null || return 1
		if ((SECONDS - began > boot_limit)); then
			echo "vm: it did not boot in $boot_limit s" >&2
			kill "$machine"
			return 1
		fi
		sleep 0.2
	done
}

why_broken() {
	echo "vm: the last messages of QEMU and the kernel:" >&2
	tail -n 30 "$run/qemu.log" "$run/console" >&2 || true
}

# once COMMAND: one VM. Sets status.
once() {
	local reader machine ended=0 came_up=yes
	run=$(mktemp -d "$VM/run.XXXXXX")
	write_exchange "$1"
	start_virtiofsd || { status=125; clean_up; return; }
	cat "$run/out" &
	reader=$!
	# Opened for reading and writing so that neither side waits for the other.
	exec 3<>"$run/out"
	start_qemu
	await_command || came_up=''
	wait "$machine" || ended=$?
	unset 'processes[-1]'
	exec 3>&-
	wait "$reader" || true
	status=125
	if [[ -s $run/ctl/status ]]; then
		status=$(<"$run/ctl/status")
	else
		why_broken
		if [[ $came_up ]] && ((ended == 124)); then
			echo "vm: the time is up ($limit s)" >&2
			status=124
		fi
	fi
	clean_up
}

once "$1"
if ((status == 125)); then
	echo "vm: the VM failed; trying once more" >&2
	once "$1"
fi
exit "$status"
