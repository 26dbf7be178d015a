# shellcheck shell=bash
# The guest's process 1 becomes the host's systemd, with a target of its own that runs one command. /etc is
# the guest's copy: the host does not see what is written here.
units=/etc/systemd/system
printf '[Unit]\nRequires=basic.target vm-command.service dbus.socket\nAllowIsolate=yes\n' >$units/vm.target
cat >$units/vm-command.service <<'UNIT'
[Unit]
After=basic.target dbus.socket
[Service]
Environment=PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb TMPDIR=/scratch/tmp LANG=C.UTF-8
ExecStart=/bin/bash -c 'bash /ctl/go; sync; exec systemctl poweroff --force --force'
Delegate=yes
KillMode=process
TasksMax=infinity
UNIT
# Services that this machine does not need.
for unit in systemd-binfmt systemd-udev-trigger systemd-udevd systemd-pstore systemd-random-seed systemd-journal-flush \
	systemd-remount-fs ldconfig systemd-journal-catalog-update systemd-update-done systemd-firstboot \
	systemd-hwdb-update systemd-machine-id-commit; do
	ln -sf /dev/null $units/$unit.service
done
for unit in proc-sys-fs-binfmt_misc.automount sys-kernel-debug.mount sys-kernel-tracing.mount tmp.mount; do
	ln -sf /dev/null $units/$unit
done
rm -f $units/sysinit.target.wants/* $units/timers.target.wants/* $units/multi-user.target.wants/*
: >/etc/fstab
echo vm >/etc/hostname
tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
mkdir -p /etc/tmpfiles.d /etc/modules-load.d /etc/sysctl.d
# tmp.conf would empty /tmp, including the host's files in it.
for file in tmp x11 home; do ln -sf /dev/null /etc/tmpfiles.d/$file.conf; done
cp "$(dirname "$0")/modules" /etc/modules-load.d/vm.conf
printf 'net.ipv4.ip_forward=1\nnet.bridge.bridge-nf-call-iptables=1\n' >/etc/sysctl.d/99-vm.conf
exec /lib/systemd/systemd --unit=vm.target --show-status=false
