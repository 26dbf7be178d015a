// Package pin makes Linux namespaces that no process lives in: it creates a
// user, network, IPC and UTS namespace together, holds them by descriptors,
// pins them to files, opens them again and tells who owns them.
//
// # The problem
//
// Every namespace belongs to the user namespace that was current when it was
// made (user_namespaces(7), "Interaction of user namespaces and other types of
// namespaces"), and only capabilities in that owner count for the objects in
// it. A network namespace made by a daemon therefore belongs to the host. A
// container put into a child user namespace and into that network namespace
// can neither configure its interfaces nor mount /sys: since Linux commit
// 7dc5dbc879bd ("sysfs: Restrict mounting sysfs") a mount of sysfs needs
// CAP_SYS_ADMIN in the owner of the mounter's network namespace.
//
// The order has to be: first the user namespace, then the others inside it,
// before any process of the container exists. [Create] does that with one
// clone3 (the kernel makes the user namespace first when several are asked
// for). The child it needs for that runs no Go code, is found by no pid that
// could be reused, and is dead and reaped when Create returns, also when the
// caller is killed in the middle. The user namespace belongs to the host's user
// that is root in it, and so do its budgets ([Namespace.OwnerUID]): the thread
// that calls clone3 has that user for its effective one meanwhile.
// [Namespace.Pin] then gives the network
// namespace a name in the file system. The user namespace needs none: as long
// as the network namespace lives its owner lives, and [Namespace.Owner]
// (NS_GET_USERNS of ioctl_ns(2)) brings it back.
//
// # Rules
//
// A [Namespace] owns one descriptor; exactly one of Close and Disown ends that.
// All functions and methods may be called from any goroutine at the same time.
// Creating and pinning need CAP_SYS_ADMIN, CAP_SETUID and CAP_SETGID in the
// caller's user namespace, and /proc; without CAP_SYS_PTRACE user namespaces
// belong to the caller's user ([Set.OwnerErr] says so). Host IDs are those of the caller's user
// namespace.
package pin
