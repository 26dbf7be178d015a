# shellcheck shell=bash
# The guest's process 1 without systemd: a pure cgroup v2 hierarchy, one command, power off.
export PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb TMPDIR=/scratch/tmp LANG=C.UTF-8
mount -t tmpfs -o mode=755 run /run
mkdir -p /dev/pts /dev/shm /dev/mqueue /run/lock
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t mqueue mqueue /dev/mqueue
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t securityfs securityfs /sys/kernel/security
mount --make-rshared /
[[ -e /dev/fd ]] || ln -s /proc/self/fd /dev/fd
[[ -e /dev/stdout ]] || { ln -s fd/0 /dev/stdin && ln -s fd/1 /dev/stdout && ln -s fd/2 /dev/stderr; }
ip link set lo up
hostname vm
xargs modprobe -aq <"$(dirname "$0")/modules"
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables
# When the root group passes on its controllers, it must have no process (cgroups(7), "no internal processes").
mkdir /sys/fs/cgroup/init.scope
echo $$ >/sys/fs/cgroup/init.scope/cgroup.procs
echo '+cpuset +cpu +io +memory +hugetlb +pids +rdma +misc' >/sys/fs/cgroup/cgroup.subtree_control
bash /ctl/go
sync
exec /bin/busybox poweroff -f
