package pod

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// StartTime reads field 22 of proc_pid_stat(5). The second field, the command in parentheses, may hold anything, so
// counting starts behind its last parenthesis.
func StartTime(pid int) (uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	const startTimeField = 22 - 3 // the first field behind the command is the third
	if len(fields) <= startTimeField {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	return strconv.ParseUint(fields[startTimeField], 10, 64)
}

// Condition is the kernel's word for what a process does, "S (sleeping)".
func (p Process) Condition() string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
	if err != nil || !p.Alive() {
		return "gone"
	}
	for line := range strings.Lines(string(data)) {
		if state, ok := strings.CutPrefix(line, "State:"); ok {
			return strings.TrimSpace(state)
		}
	}
	return "unknown"
}

// Alive reports whether that very process still exists (a zombie does). One that cannot be looked at, for want of a
// descriptor perhaps, has not ended for that: kill(2) needs none.
func (p Process) Alive() bool {
	if p.PID <= 0 {
		return false
	}
	started, err := StartTime(p.PID)
	if err != nil {
		return !errors.Is(unix.Kill(p.PID, 0), unix.ESRCH)
	}
	return started == p.StartTime
}
