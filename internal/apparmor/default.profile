# The AppArmor profile of Pinfold's containers that ask for RuntimeDefault (or for nothing).
#
# What a container may do is decided first of all by its namespaces, capabilities and seccomp filter. This
# profile is the second fence: it keeps a container, privileged within its own namespaces or not, from the
# kernel's settings that are the whole node's, and from processes outside of its own profile.
profile pinfold-default flags=(attach_disconnected,mediate_deleted) {
  # Open by default: these are fenced by namespaces and capabilities.
  network,
  capability,
  file,
  umount,

  # Containers of one node may signal and trace what has this profile too, as far as their PID namespace
  # shows it to them; the runtime and its supervisor may signal containers.
  signal (send, receive) peer=pinfold-default,
  signal (receive) peer=unconfined,
  signal (receive) peer={runc,crun,pinder,pinfoldd},
  ptrace (trace, read, tracedby, readby) peer=pinfold-default,

  # No new mounts: a mount is how a hidden path is uncovered.
  deny mount,
  deny pivot_root,

  # The node's kernel settings. What belongs to the pod's own network and IPC namespaces stays as the
  # read-only paths of the container have it: net, and kernel/shm*, kernel/msg*, kernel/sem.
  deny /proc/sys/[^kn]** wklx,
  deny /proc/sys/kernel/{[^sm]**,s[^he]**,sh[^m]**,se[^m]**,m[^s]**,ms[^g]**} wklx,

  # Files of /proc that are the node's, not a process's.
  deny /proc/{acpi,asound,bus,driver,fs,irq,scsi,tty}/** wklx,
  deny /proc/{kallsyms,kmsg,mem,sched_debug,timer_list} rwklx,
  deny /proc/kcore rwklx,
  deny /proc/sysrq-trigger rwklx,

  # Devices and the kernel itself, seen through /sys. Control groups are fenced by their own namespace.
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,
}
