// Package pin makes Linux namespaces without a process in them. It makes a user, network, IPC and
// UTS namespace together, holds them by descriptors, pins them to files, opens them again and finds
// their owners.
//
// # The problem
//
// Every namespace belongs to the user namespace in which it was made (user_namespaces(7),
// "Interaction of user namespaces and other types of namespaces"). Only capabilities in that owner
// count for the objects in it. So a network namespace that a daemon makes belongs to the host. A
// container in a child user namespace and in that network namespace can neither configure its
// interfaces nor mount /sys: since Linux commit 7dc5dbc879bd ("sysfs: Restrict mounting sysfs") a
// mount of sysfs needs CAP_SYS_ADMIN in the owner of the mounter's network namespace.
//
// So the user namespace must come first, then the others inside it, before any process of the
// container exists. [Create] does that with one clone3 (the kernel makes the user namespace first
// if several are requested). clone3 needs a child. It runs no Go code, is never looked up by a pid
// that could be reused, and is dead and reaped when Create returns, even if the caller is killed
// meanwhile. The user namespace belongs to the host's user that is root in it, and so do its
// per-user limits ([Namespace.OwnerUID]): the thread that calls clone3 has that effective user.
// [Namespace.Pin] then gives the network namespace a name in the file system. The user namespace
// needs none: it lives as long as the network namespace that it owns, and [Namespace.Owner]
// (NS_GET_USERNS of ioctl_ns(2)) finds it again.
//
// # Rules
//
// A [Namespace] owns one descriptor. Either Close or Disown ends that, exactly once. Any goroutine
// may call all functions and methods at any time. Making and pinning namespaces needs
// CAP_SYS_ADMIN, CAP_SETUID and CAP_SETGID in the caller's user namespace, and /proc. Without
// CAP_SYS_PTRACE user namespaces belong to the caller's user ([Set.OwnerErr] says so). Host IDs are
// those of the caller's user namespace.
package pin
