#!/usr/bin/env bash
# `make demo`: one pod in its own user namespace, on this machine, in a minute.
#
# It uses a scratch directory and its own bridge, and does not change the system's
# directories. The trap at the end always removes what was made. Set PINFOLD_DEMO_KEEP_LOGS=1 to print the daemon's
# log at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

me=demo
bin=${PINFOLD_BIN:-$PWD/build/bin}
runc=${PINFOLD_RUNC:-$PWD/build/tools/runc}
plugins=${PINFOLD_CNI_BIN:-$PWD/build/tools/cni}
image=docker.io/library/busybox:demo
network=pfdemo
log_level=info
bridge=pfdemo0
subnet4=10.211.77
subnet6=fd8f:2c1a:77e4:77

# shellcheck source=hack/demo-lib.sh
source hack/demo-lib.sh

[[ $(id -u) == 0 ]] || fail "the demo must run as root: it makes namespaces, mounts and a bridge (try: sudo make demo)"
! ip link show "$bridge" >/dev/null 2>&1 || fail "the link $bridge exists already; if an earlier demo left it: ip link delete $bridge"
[[ -z $(ip route show root "$subnet4.0/24") ]] || fail "this machine already has a route to $subnet4.0/24, which the demo would use"

# What is shown goes to these even while a step's own output is caught.
exec 3>&1 4>&2
scratch=$(mktemp -d -t pinfold-demo.XXXXXX)
# The pod's root is an ordinary user on the host. It must be able to enter the
# directories above its root file system.
chmod 711 "$scratch"
socket=$scratch/run/pinfold.sock
netns_dir=$scratch/netns
ipam_dir=$scratch/ipam
daemon='' pod_pid=''
trap 'on_exit $?' EXIT
trap 'exit 130' INT TERM HUP
save_sysctls

pinfold() { "$bin/pinfold" --socket "$socket" "$@"; }
inside() { pinfold exec demo -- "$@"; }

# The pod's command writes a numbered line every fifth of a second, for ever.
run_pod() {
	local script='n=1; while :; do echo "line $n"; sleep 0.2; n=$((n + 1)); done'
	pinfold run --keep --name demo --log-dir "$scratch/logs" "$image" -- sh -c "$script"
}

# log_lines prints how many lines the pod has written, or fails if one is
# missing, doubled or out of order.
log_lines() {
	pinfold logs demo | awk '$0 != "line " NR {print "line " NR " of the log is: " $0 > "/dev/stderr"; exit 1} END {print NR}'
}

# The pod's process on the host, found without Pinfold: its network namespace is
# the pinned one.
find_pod_process() {
	local pins=("$netns_dir"/pinfold-*) inode p
	[[ -e ${pins[0]} ]] || fail "no pinned network namespace in $netns_dir"
	pod_id=${pins[0]##*/pinfold-}
	inode=$(stat -Lc %i "${pins[0]}")
	for p in /proc/[0-9]*; do
		if [[ $(stat -Lc %i "$p/ns/net" 2>/dev/null) == "$inode" ]]; then
			pod_pid=${p#/proc/}
			return
		fi
	done
	fail "no process is in the pod's network namespace"
}

pod_ip() { pinfold inspect demo | grep -oE "$subnet4\.[0-9]+" | head -n 1; }
pod_ip6() { pinfold inspect demo | grep -oE "$subnet6:[0-9a-f:]+" | head -n 1; }
# The start of process 1 in clock ticks after boot. It differs for every process.
start_ticks() { inside cut -d ' ' -f 22 /proc/1/stat; }
uptime_seconds() { inside awk 'NR == FNR {up = $1; next} {printf "%.1f", up - $22 / 100}' /proc/uptime /proc/1/stat; }
ping_pod() { ping -c 3 -i 0.2 -W 2 "$1" | tail -n 2 | head -n 1; }

show_pod() {
	find_pod_process
	show "uid map inside" "$(inside cat /proc/self/uid_map | xargs)   (inside, outside, how many)"
	show "inside it is" "$(inside id | head -n 1)"
	show "outside it is" "uid $(stat -c %u "/proc/$pod_pid"), pid $pod_pid: $(tr '\0' ' ' <"/proc/$pod_pid/cmdline" | cut -c 1-40)…"
	show "/sys inside" "$(inside grep ' /sys ' /proc/mounts)"
	show "links in /sys" "$(inside ls /sys/class/net | xargs)   (the pod's own: its user namespace owns its network)"
	ip=$(pod_ip) started=$(start_ticks)
	show "IP addresses" "$ip $(! have_ipv6 || pod_ip6)"
	show "ping from here" "$(ping_pod "$ip")"
	! have_ipv6 || show "the same over IPv6" "$(ping_pod "$(pod_ip6)")"
	lines=$(log_lines)
	show "process 1" "up $(uptime_seconds) s, started at tick $started; $lines lines in its log"
}

kill_daemon() {
	kill -9 "$daemon"
	wait "$daemon" 2>/dev/null || true
}

show_survival() {
	local same=yes
	[[ $(pod_ip) == "$ip" && $(start_ticks) == "$started" ]] || same=no
	pinfold ps | sed 's/^/    /'
	show "IP address" "$(pod_ip)   (was $ip)"
	show "process 1" "up $(uptime_seconds) s, started at tick $(start_ticks)   (was $started)"
	show "its log" "$(log_lines) lines, none missing   (was $lines)"
	show "ping from here" "$(ping_pod "$ip")"
	[[ $same == yes ]] || fail "this is not the same pod"
}

stop_all() {
	kill -TERM "$daemon"
	wait "$daemon" || fail "pinfoldd did not end cleanly on SIGTERM"
	daemon=''
	end_pinder
}

title "Pinfold: a pod is its namespaces, and they are pinned before a process enters them"
note "everything is in $scratch, behind the bridge $bridge"
write_configuration
count_all before
step "start pinfoldd" start_daemon
step "make an image from $(readlink -f /bin/busybox) and load it" load_image
step "run a pod in a user namespace of its own" run_pod
title "What exists now"
show_pod
count_all pod

title "The daemon dies"
step "kill -9 pinfoldd (pid $daemon)" kill_daemon
show "ping from here" "$(ping_pod "$ip")"
step "start pinfoldd again" start_daemon
title "The same pod, same address, same process"
show_survival

title "Everything is removed"
step "pinfold rm demo" pinfold rm demo
step "pinfold image rm" pinfold image rm "$image"
count_all removed
step "end pinfoldd (SIGTERM) and pinder" stop_all
step "delete the bridge (the bridge plugin leaves it, by design)" ip link delete "$bridge"
restore_sysctls
count_all after
report
