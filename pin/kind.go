package pin

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Kind is a set of kinds of namespaces; a Namespace has exactly one.
type Kind uint8

// The kinds that Create makes.
const (
	User Kind = 1 << iota
	Net
	IPC
	UTS
)

// More kinds, which Open recognizes and Create refuses.
const (
	PID Kind = 1 << (iota + 4)
	Mount
	Cgroup
	Time
)

const (
	creatable = User | Net | IPC | UTS
	// joinable are the kinds that a single thread can join and leave. setns(2) refuses the user
	// namespace to a process with several threads. It refuses the mount namespace to a thread that
	// shares its root and working directory, as all Go threads do.
	joinable = Net | IPC | UTS
)

// kindInfo has the kernel's names for one kind.
type kindInfo struct {
	kind  Kind
	name  string // in messages, and the N in the sysctl user.max_N_namespaces
	proc  string // below /proc/PID/ns
	flag  int    // CLONE_NEW…; NS_GET_NSTYPE returns it, too
	pidfd uint   // PIDFD_GET_…_NAMESPACE, include/uapi/linux/pidfd.h, Linux 6.11
}

var kindTable = [...]kindInfo{
	{User, "user", "user", unix.CLONE_NEWUSER, unix.PIDFD_GET_USER_NAMESPACE},
	{Net, "net", "net", unix.CLONE_NEWNET, unix.PIDFD_GET_NET_NAMESPACE},
	{IPC, "ipc", "ipc", unix.CLONE_NEWIPC, unix.PIDFD_GET_IPC_NAMESPACE},
	{UTS, "uts", "uts", unix.CLONE_NEWUTS, unix.PIDFD_GET_UTS_NAMESPACE},
	{PID, "pid", "pid", unix.CLONE_NEWPID, unix.PIDFD_GET_PID_NAMESPACE},
	{Mount, "mnt", "mnt", unix.CLONE_NEWNS, unix.PIDFD_GET_MNT_NAMESPACE},
	{Cgroup, "cgroup", "cgroup", unix.CLONE_NEWCGROUP, unix.PIDFD_GET_CGROUP_NAMESPACE},
	{Time, "time", "time", unix.CLONE_NEWTIME, unix.PIDFD_GET_TIME_NAMESPACE},
}

// String returns the kinds as the kernel abbreviates them, as in "user+net".
func (k Kind) String() string {
	var names []string
	for _, info := range k.infos() {
		names = append(names, info.name)
	}
	if len(names) == 0 {
		return "no"
	}
	return strings.Join(names, "+")
}

// infos returns the info of each kind in k, the user namespace first.
func (k Kind) infos() []kindInfo {
	var infos []kindInfo
	for _, info := range kindTable {
		if k&info.kind != 0 {
			infos = append(infos, info)
		}
	}
	return infos
}

// cloneFlags returns the CLONE_NEW… flags of all kinds in k.
func (k Kind) cloneFlags() uint64 {
	var flags uint64
	for _, info := range k.infos() {
		flags |= uint64(info.flag)
	}
	return flags
}

// kindOf asks the kernel for the kind of the namespace fd.
func kindOf(fd int) (Kind, error) {
	flag, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil {
		return 0, fmt.Errorf("NS_GET_NSTYPE: %w", err)
	}
	for _, info := range kindTable {
		if info.flag == flag {
			return info.kind, nil
		}
	}
	return 0, fmt.Errorf("NS_GET_NSTYPE: unknown kind %#x", flag)
}
