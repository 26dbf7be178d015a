package proc

import (
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// NamespacePath is the path of the process's namespace of a kind: "mnt", "net", "pid".
func (p Process) NamespacePath(kind string) string { return file(p.PID, "ns/"+kind) }

// PIDNamespace tells PID namespaces apart: it is the target of a process's link ns/pid, "" if it has ended.
func PIDNamespace(pid int) string {
	ns, _ := os.Readlink(file(pid, "ns/pid"))
	return ns
}

// IsFirst reports whether a process is PID 1 of a PID namespace other than ours: the last number of the line NSpid of
// proc_pid_status(5).
func IsFirst(pid int) bool {
	fields := strings.Fields(Status(pid, "NSpid"))
	return len(fields) > 1 && fields[len(fields)-1] == "1"
}

// nsGetMntNSID is NS_GET_MNTNS_ID of linux/nsfs.h (Linux 6.11): _IOR(0xb7, 0x5, __u64).
const nsGetMntNSID = 0x8008b705

// MountNamespace is the kernel's number of a process's mount namespace, which it never gives again. It is 0 if the
// namespace is our own, if the process has ended, and before Linux 6.11.
func MountNamespace(pid int) uint64 {
	id := mountNamespace(file(pid, "ns/mnt"))
	if id == mountNamespace("/proc/self/ns/mnt") {
		return 0
	}
	return id
}

func mountNamespace(path string) uint64 {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer func() { _ = unix.Close(fd) }()
	var id uint64
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), nsGetMntNSID, uintptr(unsafe.Pointer(&id)))
	if errno != 0 {
		return 0
	}
	return id
}
