# What the scripts of the packages share: packaging/build.sh puts it at the beginning of each. The same scripts are
# called by dpkg, with words (deb-postinst(5)), and by rpm, with the number of versions that are installed afterwards.
#
# Rules: a script never fails because systemd does not run (an image that is built, a chroot, a container), because
# something was already done, or because an earlier run was cut off. Only the daemon is stopped or restarted, never
# pinder or a container.

unit=pinfold.service
# A file that preinst makes and postinst removes.
mark=/run/pinfold.is-new

systemd_runs() { [ -d /run/systemd/system ] && command -v systemctl >/dev/null; }

# act ACTION: calls systemctl for the unit; on Debian as policy-rc.d allows.
act() {
	systemd_runs || return 0
	if command -v deb-systemd-invoke >/dev/null; then
		deb-systemd-invoke "$1" "$unit" >/dev/null || say "systemctl $1 $unit failed; see: systemctl status $unit"
	else
		systemctl --quiet "$1" "$unit" || say "systemctl $1 $unit failed; see: systemctl status $unit"
	fi
}

reload_units() { ! systemd_runs || systemctl --system daemon-reload || true; }

say() { echo "pinfold: $*" >&2; }

# pods counts the pods that have a record and are alive: their namespaces are pinned below the state directory.
pods() {
	count=0
	for record in /var/lib/pinfold/pods/*/; do
		id=$(basename "$record")
		if [ -d "/run/pinfold/ns/$id" ]; then count=$((count + 1)); fi
	done
	echo "$count"
}

# remains lists what is left in the kernel: mounts (pins of namespaces, layers), and processes of pinder.
remains() {
	[ ! -r /proc/self/mountinfo ] ||
		awk '$5 ~ "^/run/pinfold/" || $5 ~ "^/var/lib/pinfold/" || $5 ~ "^(/var)?/run/netns/pinfold-" { print "mount " $5 }' /proc/self/mountinfo
	for process in /proc/[0-9]*; do
		case $(cat "$process/cmdline" 2>/dev/null | tr '\0' ' ') in
		"pinder --state /run/pinfold "* | "pinder supervise --state /run/pinfold "*) echo "process ${process#/proc/} (pinder)" ;;
		esac
	done
}
