package entry

import (
	"encoding/binary"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// capabilityNames are those of capabilities(7), by their numbers.
var capabilityNames = []string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
	"LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
	"SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
	"SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
	"MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
	"CHECKPOINT_RESTORE",
}

var capabilityNumbers = sync.OnceValue(func() map[string]int {
	numbers := make(map[string]int, len(capabilityNames))
	for i, name := range capabilityNames {
		numbers["CAP_"+name] = i
	}
	return numbers
})

// lastCapability is the highest number that the kernel knows.
var lastCapability = sync.OnceValues(func() (int, error) {
	b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
})

// set is a set of capabilities as the kernel has it. Names that are unknown here or to the kernel are left out, as
// runtimes do.
func set(names []string, last int) (bits uint64) {
	for _, name := range names {
		if n, ok := capabilityNumbers()[name]; ok && n <= last {
			bits |= 1 << n
		}
	}
	return bits
}

// MayTrace reports whether the capabilities let a process trace others of its user namespace.
func (c *Capabilities) MayTrace() bool {
	if c == nil {
		return true
	}
	const bits = 1<<unix.CAP_SYS_PTRACE | 1<<unix.CAP_SYS_ADMIN
	return (set(c.Bounding, unix.CAP_LAST_CAP)|set(c.Permitted, unix.CAP_LAST_CAP)|set(c.Inheritable, unix.CAP_LAST_CAP))&bits != 0
}

// dropBounding adds the calls that take what is not in the bounding set out of it.
func (w *writer) dropBounding(c *Capabilities) {
	keep := set(c.Bounding, w.lastCap)
	for n := range w.lastCap + 1 {
		if keep&(1<<n) == 0 {
			w.l.Call("drop "+capabilityName(n)+" from the bounding set", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(n))
		}
	}
}

func capabilityName(n int) string {
	if n < len(capabilityNames) {
		return "CAP_" + capabilityNames[n]
	}
	return "capability " + strconv.Itoa(n)
}

// setCapabilities adds the calls that set the other sets. A capability that cannot become ambient is left out, as
// runtimes do.
func (w *writer) setCapabilities(c *Capabilities) {
	header := binary.NativeEndian.AppendUint32(nil, unix.LINUX_CAPABILITY_VERSION_3)
	header = binary.NativeEndian.AppendUint32(header, 0)
	var data []byte
	for _, shift := range []int{0, 32} {
		for _, names := range [][]string{c.Effective, c.Permitted, c.Inheritable} {
			data = binary.NativeEndian.AppendUint32(data, uint32(set(names, w.lastCap)>>shift))
		}
	}
	w.l.Call("set the capabilities", unix.SYS_CAPSET, w.l.Bytes(header), w.l.Bytes(data))
	w.l.Call("clear the ambient set", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	ambient := set(c.Ambient, w.lastCap)
	for n := range w.lastCap + 1 {
		if ambient&(1<<n) != 0 {
			w.l.Call("raise an ambient capability", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(n), 0, 0).Soft()
		}
	}
}
