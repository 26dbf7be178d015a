package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Stat is a process as /proc/PID/stat shows it (proc_pid_stat(5)).
type Stat struct {
	Process
	// Name is the command's, at most 15 bytes, any but newline among them.
	Name string
	// State is a letter: 'D' is uninterruptible sleep, 'Z' a zombie.
	State byte
	// Parent is the parent's PID.
	Parent int
	// Threads counts them.
	Threads uint64
	// WaitStatus is how a zombie ended, encoded as by wait(2); HasWaitStatus says that the kernel shows it.
	WaitStatus    uint32
	HasWaitStatus bool
}

// ReadStat returns the process that has the PID now.
func ReadStat(pid int) (Stat, error) {
	data, err := os.ReadFile(file(pid, "stat"))
	if err != nil {
		return Stat{}, err
	}
	stat, err := ParseStat(data)
	if err != nil {
		return Stat{}, fmt.Errorf("%s: %w", file(pid, "stat"), err)
	}
	// The file shows the PID of /proc's PID namespace, which is what we were given.
	stat.PID = pid
	return stat, nil
}

// ParseStat reads the content of /proc/PID/stat.
func ParseStat(data []byte) (Stat, error) {
	// The name may hold parentheses; what follows it does not.
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 0 || end < open {
		return Stat{}, errors.New("no command name")
	}
	fields := bytes.Fields(data[end+1:])
	const first = 3 // the number of the first field behind the name
	if len(fields) <= 22-first {
		return Stat{}, fmt.Errorf("%d fields behind the command name", len(fields))
	}
	var failed error
	number := func(field int) uint64 {
		n, err := strconv.ParseUint(string(fields[field-first]), 10, 64)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("field %d: %w", field, err))
		}
		return n
	}
	s := Stat{
		Name: string(data[open+1 : end]), State: fields[0][0],
		Parent: int(number(4)), Threads: number(20),
	}
	s.PID, _ = strconv.Atoi(string(bytes.TrimSpace(data[:open])))
	s.Start = number(22)
	const waitStatus = 52
	if len(fields) > waitStatus-first {
		s.WaitStatus, s.HasWaitStatus = uint32(number(waitStatus)), true
	}
	return s, failed
}

// Dead reports whether nothing of the process runs any more. The main thread may end before others.
func (s *Stat) Dead() bool { return (s.State == 'Z' || s.State == 'X') && s.Threads <= 1 }

// PIDs are those of all processes of the node, in no order.
func PIDs() ([]int, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// All returns all processes of the node, by PID.
func All() (map[int]Stat, error) {
	pids, err := PIDs()
	if err != nil {
		return nil, err
	}
	all := make(map[int]Stat, len(pids))
	for _, pid := range pids {
		stat, err := ReadStat(pid)
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
			return nil, err // it has not ended for that
		}
		if err == nil {
			all[pid] = stat
		}
	}
	return all, nil
}

// Descends reports whether an ancestor of s is in roots. A child is never older than its parent: a PID that was given
// again while all was read leads nowhere.
func Descends(all map[int]Stat, s Stat, roots map[int]bool) bool {
	for range 1000 {
		parent, ok := all[s.Parent]
		switch {
		case roots[s.Parent]:
			return true
		case !ok || parent.Start > s.Start:
			return false
		}
		s = parent
	}
	return false
}

// Status returns the value of a line of /proc/PID/status: "S (sleeping)" for "State". It is "" if there is none.
func Status(pid int, name string) string {
	data, err := os.ReadFile(file(pid, "status"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// State is what the process does, as the kernel shows it: "S (sleeping)"; "gone" if it has ended and was reaped.
func (p Process) State() string {
	state := Status(p.PID, "State")
	if state == "" || !p.Alive() {
		return "gone"
	}
	return state
}

// WaitChannel is the kernel's function in which a process waits, "" if that is not known.
func WaitChannel(pid int) string {
	data, err := os.ReadFile(file(pid, "wchan"))
	if at := strings.TrimSpace(string(data)); err == nil && at != "0" {
		return at
	}
	return ""
}

// MaxCommandLine limits what is read of a command line, in bytes. That of a container's process may have megabytes.
const MaxCommandLine = 64 << 10

// CommandLine reads a process's arguments into buf, each with a zero byte behind it, and returns them: nil if it has
// ended, and for a zombie. What does not fit is cut. A process may change them. Whoever looks at all processes uses
// one buffer, and leaves no garbage.
func CommandLine(pid int, buf []byte) []byte {
	fd, err := unix.Open(file(pid, "cmdline"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer func() { _ = unix.Close(fd) }()
	read := 0
	for read < len(buf) {
		n, err := unix.Read(fd, buf[read:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil
		}
		if n == 0 {
			break
		}
		read += n
	}
	if read == 0 {
		return nil
	}
	return buf[:read]
}

func file(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }
