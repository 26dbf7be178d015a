# shellcheck shell=bash
# A daemon in scratch directories, and ways of showing, waiting, counting and cleaning up; sourced by demo.sh and run.sh.

if [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
	bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m' live=yes
else
	bold='' dim='' green='' red='' plain='' live=''
fi

title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
note() { printf '  %s%s%s\n' "$dim" "$*" "$plain"; }
show() { printf '  %-20s %s\n' "$1" "$2"; }
fail() {
	printf '%s%s: %s%s\n' "$red" "$me" "$*" "$plain" >&2
	exit 1
}

# now prints milliseconds since the epoch, without starting a process.
now() { printf '%s' $((${EPOCHREALTIME/[.,]/} / 1000)); }

# step TEXT COMMAND...: runs a command in this shell and prints how long it
# took; on a terminal a spinner turns meanwhile. Its output is shown only if it fails.
step() {
	local text=$1 started ended spinner=''
	shift
	started=$(now)
	if [[ $live ]]; then
		spin "$text" &
		spinner=$!
	fi
	current_step=$text step_spinner=$spinner
	"$@" >"$scratch/step.log" 2>&1
	ended=$(now)
	stop_spinner
	current_step=''
	printf '  %sok%s %-58s %s%6d ms%s\n' "$green" "$plain" "$text" "$dim" $((ended - started)) "$plain"
}

spin() {
	local i=0 frames='|/-\'
	trap - EXIT INT TERM HUP # those are the demo's, not this child's
	while :; do
		printf '\r  %s  %s ' "${frames:i++%4:1}" "$1"
		sleep 0.1
	done
}

stop_spinner() {
	[[ ${step_spinner:-} ]] || return 0
	kill "$step_spinner" 2>/dev/null || true
	wait "$step_spinner" 2>/dev/null || true
	step_spinner=''
	printf '\r\e[K'
}

# until_true SECONDS TEXT COMMAND...: runs the command until it succeeds, up to a
# deadline. There is no event that a shell could wait for.
until_true() {
	local deadline=$((SECONDS + $1)) text=$2
	shift 2
	until "$@"; do
		((SECONDS < deadline)) || fail "$text"
		sleep 0.02
	done
}

have_ipv6() { [[ -e /proc/net/if_inet6 && $(cat /proc/sys/net/ipv6/conf/default/disable_ipv6) == 0 ]]; }

# The bridge plugin turns IP forwarding on for the whole machine and leaves it on.
forwarding=(/proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding)
declare -A forwarding_was=()
save_sysctls() {
	local f
	for f in "${forwarding[@]}"; do
		[[ ! -e $f ]] || forwarding_was[$f]=$(<"$f")
	done
}
restore_sysctls() {
	local f
	for f in "${!forwarding_was[@]}"; do
		[[ $(<"$f") == "${forwarding_was[$f]}" ]] || printf '%s\n' "${forwarding_was[$f]}" >"$f"
	done
}

# --- A daemon in scratch directories --------------------------------------
# launcher is the debugger that runs the daemon, and separator is what comes before the daemon's arguments; both may be empty.
launcher=() separator=()

write_configuration() {
	mkdir -p "$scratch"/{root,run,netns,net.d,hosts.d,ipam}
	local ranges="[{\"subnet\": \"$subnet4.0/24\"}]" routes='{"dst": "0.0.0.0/0"}'
	if have_ipv6; then
		ranges+=", [{\"subnet\": \"$subnet6::/64\"}]"
		routes+=', {"dst": "::/0"}'
	fi
	cat >"$scratch/net.d/10-scratch.conflist" <<-EOF
		{
		  "cniVersion": "1.0.0", "name": "$network",
		  "plugins": [{
		    "type": "bridge", "bridge": "$bridge", "isGateway": true, "ipMasq": true,
		    "ipam": {"type": "host-local", "dataDir": "$ipam_dir", "ranges": [$ranges], "routes": [$routes]}
		  }]
		}
	EOF
	: >"$scratch/config.toml"
}

start_daemon() {
	launch_daemon
	until_true 20 "pinfoldd does not answer on its socket" daemon_answers
}

launch_daemon() {
	# In a session of its own, so that Ctrl-C reaches the script alone.
	setsid "${launcher[@]}" "$bin/pinfoldd" "${separator[@]}" --config "$scratch/config.toml" \
		--root "$scratch/root" --state "$scratch/run" --socket "$socket" \
		--netns-dir "$netns_dir" --cni-conf-dir "$scratch/net.d" --cni-bin-dir "$plugins" \
		--registry-config-dir "$scratch/hosts.d" --runtime "runc=$runc" --default-runtime runc \
		--cgroup-driver cgroupfs --log-level "$log_level" >>"$scratch/daemon.log" 2>&1 </dev/null 3>&- 4>&- &
	daemon=$!
}

daemon_answers() {
	kill -0 "$daemon" 2>/dev/null || fail "pinfoldd ended at once"
	pinfold ps >/dev/null 2>&1
}

load_image() {
	go run ./hack/busybox-image -name "$image" -o "$scratch/busybox.tar"
	pinfold image load "$scratch/busybox.tar"
}

# --- Counting the demo's objects on the machine -----------------------------
# Other programs run on the machine, too. So each kind of object is counted by
# what marks it as the demo's: its scratch directory, its bridge, its subnet, its
# network's name, its pod's ID.

kinds=("namespace pins" mounts links addresses "firewall rules" cgroups processes "pod records")
declare -A counted=()
seen_chains='' seen_links=''

# ours_processes lists the pids whose command line names the scratch directory,
# or that are in a network namespace that is pinned there.
ours_processes() {
	local p args inode inodes=' '
	for p in "$netns_dir"/*; do
		[[ ! -e $p ]] || inodes+="$(stat -Lc %i "$p") "
	done
	for p in /proc/[0-9]*; do
		[[ ${p#/proc/} != "$$" && ${p#/proc/} != "$BASHPID" ]] || continue
		args=$(tr '\0' ' ' 2>/dev/null <"$p/cmdline") || continue
		inode=$(stat -Lc %i "$p/ns/net" 2>/dev/null) || continue
		if [[ $args == *"$scratch"* || $inodes == *" $inode "* ]]; then
			printf '%s\n' "${p#/proc/}"
		fi
	done
}

ours_pins() { [[ ! -d $scratch ]] || find "$netns_dir" "$scratch/run/ns" -type f 2>/dev/null || true; }
ours_mounts() { awk -v s="$scratch/" 'index($5, s) == 1 {print $5}' /proc/self/mountinfo; }
ours_addresses() { [[ ! -d $scratch ]] || find "$ipam_dir" -type f -regex '.*/[0-9a-f.:]+' 2>/dev/null || true; }
ours_records() { [[ ! -d $scratch ]] || find "$scratch/root/pods" -mindepth 1 -maxdepth 1 2>/dev/null || true; }

ours_links() {
	ip -o link show master "$bridge" 2>/dev/null | awk -F': ' '{sub(/@.*/, "", $2); print $2}'
	ip -o link show "$bridge" 2>/dev/null | awk -F': ' '{print $2}'
}

ours_rules() {
	{ iptables-save; ip6tables-save; } 2>/dev/null |
		grep -E "$network|$subnet4\.|$subnet6:${seen_chains:+|$seen_chains}" || true
}

# A cgroup is the demo's when its path has the pod's ID, or a process of the pod
# was in it; and Pinfold's own parents of such groups count, too.
ours_cgroups() {
	{
		find /sys/fs/cgroup -maxdepth 3 -type d -name 'pinfold*' 2>/dev/null
		[[ ! ${pod_id:-} ]] || find /sys/fs/cgroup -type d -path "*$pod_id*" 2>/dev/null
		for dir in ${seen_cgroups:-}; do
			[[ ! -d $dir ]] || printf '%s\n' "$dir"
		done
	} | sort -u
}

# remember notes names that can be found only while the pod runs: its rule chains,
# its links, its containers' cgroups.
remember() {
	local line dir
	seen_chains=$(ours_rules | grep -oE 'CNI-[0-9a-f]+' | sort -u | paste -sd '|')
	seen_links=$(ours_links)
	seen_cgroups=''
	[[ $pod_pid ]] || return 0
	while IFS=: read -r _ line dir; do
		grep -q ":$line:$dir\$" /proc/self/cgroup && continue
		line=${line#name=}
		for line in "/sys/fs/cgroup/$line$dir" "/sys/fs/cgroup/unified$dir" "/sys/fs/cgroup$dir"; do
			[[ ! -d $line ]] || seen_cgroups+=$line$'\n'
		done
	done <"/proc/$pod_pid/cgroup"
	seen_cgroups=$(tr -s / <<<"$seen_cgroups")
}

ours_seen_links() {
	local link
	for link in $(printf '%s\n' "$seen_links" "$(ours_links)" | sort -u); do
		! ip link show "$link" >/dev/null 2>&1 || printf '%s\n' "$link"
	done
}

count_all() {
	local kind
	[[ $1 != pod ]] || remember
	for kind in "${kinds[@]}"; do
		counted[$1:$kind]=$(list_ours "$kind" | grep -c . || true)
	done
}

list_ours() {
	case $1 in
	"namespace pins") ours_pins ;;
	mounts) ours_mounts ;;
	links) ours_seen_links ;;
	addresses) ours_addresses ;;
	"firewall rules") ours_rules ;;
	cgroups) ours_cgroups ;;
	processes) ours_processes ;;
	"pod records") ours_records ;;
	esac
}

# report prints the table and fails if anything is left.
report() {
	local kind left=()
	title "What is left"
	printf '  %s%-18s %8s %10s %12s %8s%s\n' "$dim" '' before 'with pod' 'pod removed' 'at end' "$plain"
	for kind in "${kinds[@]}"; do
		printf '  %-18s %8d %10d %12d %8d\n' "$kind" "${counted[before:$kind]}" "${counted[pod:$kind]}" \
			"${counted[removed:$kind]}" "${counted[after:$kind]}"
		((${counted[after:$kind]} <= ${counted[before:$kind]})) || left+=("$kind")
	done
	note "after removing the pod there remain the daemon, pinder and the bridge; at the end, nothing"
	if ((${#left[@]})); then
		for kind in "${left[@]}"; do
			list_ours "$kind" | sed "s/^/    left: $kind: /"
		done
		fail "these are left: ${left[*]}"
	fi
	printf '\n  %snothing is left%s, in %d seconds all told\n' "$green$bold" "$plain" "$SECONDS"
}

# --- Ending ----------------------------------------------------------------

# end_pinder ends pinder. The daemon leaves it running on purpose. On SIGTERM it
# ends if it has no containers.
end_pinder() {
	local pid
	pid=$(grep -oE '[0-9]+' "$scratch/run/pinder.lock" 2>/dev/null | head -n 1) || true
	[[ ${pid:-} && -d /proc/$pid ]] || return 0
	[[ $(tr '\0' ' ' <"/proc/$pid/cmdline") == *"$scratch"* ]] || fail "pid $pid in pinder.lock is not the demo's pinder"
	kill -TERM "$pid"
	until_true 10 "pinder (pid $pid) does not end" process_gone "$pid"
}

process_gone() { [[ ! -d /proc/$1 ]]; }

# on_exit is the trap. After a failure it removes everything and says so; after success it is silent.
on_exit() {
	local status=$1
	trap - EXIT
	trap "" INT TERM HUP # a second Ctrl-C must not cut the clean-up short
	set +e
	exec >&3 2>&4
	stop_spinner
	if ((status)); then
		[[ ! ${current_step:-} ]] || printf '%sdemo: failed: %s%s\n' "$red" "$current_step" "$plain" >&2
		[[ ! -s $scratch/step.log ]] || sed 's/^/    /' "$scratch/step.log" >&2
	fi
	if { ((status)) || [[ ${PINFOLD_DEMO_KEEP_LOGS:-} ]]; } && [[ -s $scratch/daemon.log ]]; then
		printf '%s--- the end of the log of pinfoldd:%s\n' "$dim" "$plain" >&2
		tail -n 40 "$scratch/daemon.log" >&2
	fi
	remove_everything
	exit "$status"
}

remove_everything() {
	local pid pod mount
	if [[ -S $socket ]]; then
		for pod in $(timeout 10 "$bin/pinfold" --socket "$socket" ps 2>/dev/null | awk 'NR > 1 {print $1}'); do
			timeout 30 "$bin/pinfold" --socket "$socket" rm "$pod" >/dev/null 2>&1
		done
	fi
	[[ ! $daemon ]] || kill "$daemon" 2>/dev/null
	for pid in $(ours_processes); do
		kill -KILL "$pid" 2>/dev/null
	done
	# Deepest first; a mount that something still uses goes when that ends.
	ours_mounts | sort -r | while read -r mount; do umount -l "$mount"; done
	ip link delete "$bridge" 2>/dev/null
	restore_sysctls
	[[ ! ${pod_id:-} ]] || find /sys/fs/cgroup -depth -type d -path "*$pod_id*" 2>/dev/null | while read -r dir; do rmdir "$dir" 2>/dev/null; done
	rm -rf --one-file-system "$scratch"
}
