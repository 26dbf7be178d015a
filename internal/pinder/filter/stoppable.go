package filter

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrBusy says that no thread of a process can be stopped without a trace now.
var ErrBusy = errors.New("no thread of the init waits in a call that goes on after a stop")

// lasting are calls that the kernel begins again after a stop, so that the program does not see it. Others return EINTR
// (epoll_wait, for example; signal(7)), and there are programs that end when they see that.
var lasting = append([]int{
	unix.SYS_FUTEX, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_PPOLL, unix.SYS_PSELECT6, unix.SYS_WAIT4,
	unix.SYS_WAITID, unix.SYS_RT_SIGSUSPEND, unix.SYS_RESTART_SYSCALL,
}, lastingToo...)

// maxThreads is how many threads of a process are looked at.
const maxThreads = 256

// Stoppable returns a thread of the process that waits in such a call. All threads have the first filter: it was
// installed when there was one thread only. ErrBusy if there is none.
func Stoppable(pid int) (tid int, err error) {
	dir, err := os.Open("/proc/" + strconv.Itoa(pid) + "/task")
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(maxThreads)
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		call, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/task/" + name + "/syscall") // proc_pid_syscall(5)
		if err != nil {
			continue
		}
		number, _, _ := strings.Cut(string(call), " ")
		if n, err := strconv.Atoi(number); err == nil && slices.Contains(lasting, n) {
			return strconv.Atoi(name)
		}
	}
	return 0, ErrBusy
}
