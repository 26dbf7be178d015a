#!/usr/bin/env bash
# `make run`: a daemon of this checkout in scratch directories, behind a bridge of its own, until Ctrl-C.
# `make debug`: the same, run by delve.
#
#   run.sh [debug PORT]
#
# It says how to reach the daemon, then shows its log. At the end it removes the pods, the daemon, pinder and
# everything else that it made. LOG_LEVEL=debug shows more.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

me=run
bin=${PINFOLD_BIN:-$PWD/build/bin}
runc=${PINFOLD_RUNC:-$PWD/build/tools/runc}
plugins=${PINFOLD_CNI_BIN:-$PWD/build/tools/cni}
image=docker.io/library/busybox:latest
network=pfrun
bridge=pfrun0
subnet4=10.211.78
subnet6=fd8f:2c1a:77e4:78
log_level=${LOG_LEVEL:-info}

# shellcheck source=hack/demo-lib.sh
source hack/demo-lib.sh

[[ $(id -u) == 0 ]] || fail "must run as root: it makes namespaces, mounts and a bridge (try: sudo make run)"
! ip link show "$bridge" >/dev/null 2>&1 || fail "the link $bridge exists already: is another one running? If not: ip link delete $bridge"
[[ -z $(ip route show root "$subnet4.0/24") ]] || fail "this machine already has a route to $subnet4.0/24, which this would use"

exec 3>&1 4>&2
scratch=$(mktemp -d -t pinfold-run.XXXXXX)
chmod 711 "$scratch" # a pod's root, an ordinary user here, must enter it
socket=$scratch/run/pinfold.sock
netns_dir=$scratch/netns
ipam_dir=$scratch/ipam
daemon='' pod_pid='' port=${2:-}

pinfold() { "$bin/pinfold" --socket "$socket" "$@"; }

# A debugger wants binaries without optimization.
prepare_debugger() {
	local tools=$PWD/build/tools
	bin=$PWD/build/debug
	mkdir -p "$bin"
	CGO_ENABLED=0 go build -gcflags 'all=-N -l' -o "$bin/" ./cmd/pinfoldd ./cmd/pinder ./cmd/pinfold
	launcher=("$tools/dlv" exec --headless --accept-multiclient --continue --api-version=2 --listen="127.0.0.1:$port")
	separator=(--)
}

# end stops what runs and removes what was made. A daemon at a breakpoint cannot remove its pods, so a daemon
# without a debugger does it.
end() {
	local status=$1
	trap - EXIT
	trap "" INT TERM HUP # a second Ctrl-C must not cut this short
	set +e
	exec >&3 2>&4
	stop_spinner
	[[ ! ${current_step:-} ]] || { echo "run: failed: $current_step" && cat "$scratch/step.log"; } >&2
	printf '\n%s: removing pods and daemon\n' "$me"
	if [[ $port ]]; then
		kill "$daemon"
		wait "$daemon"
		launcher=() separator=()
		launch_daemon
		(until_true 20 "pinfoldd does not answer on its socket" daemon_answers)
	fi 2>/dev/null
	remove_everything
	[[ ! -d $scratch ]] || { echo "run: could not be removed: $scratch" >&2 && status=1; }
	exit "$status"
}
trap 'end $?' EXIT
trap 'exit 0' INT TERM HUP
save_sysctls

[[ ${1:-} != debug ]] || step "build without optimization" prepare_debugger
write_configuration
step "start pinfoldd" start_daemon
step "make an image from $(readlink -f /bin/busybox) and load it" load_image

title "Pinfold runs in $scratch"
show "socket" "unix://$socket"
show "pinfold" "$bin/pinfold --socket $socket ps"
show "a pod" "$bin/pinfold --socket $socket run $image -- id"
show "crictl" "crictl --runtime-endpoint unix://$socket --image-endpoint unix://$socket pods"
show "log" "$scratch/daemon.log"
[[ ! $port ]] || show "delve" "build/tools/dlv connect 127.0.0.1:$port"
note "Ctrl-C ends it and removes its pods"
echo
tail -n +1 -F --pid="$daemon" "$scratch/daemon.log" 2>/dev/null &
wait "$daemon" || fail "pinfoldd ended with status $?"
