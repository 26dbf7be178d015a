package inherited

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/testroot"
)

// roleVariable makes this program a service that resets its attributes ("daemon" or "pinder") and starts another, which reports
// what it inherited ("report").
const roleVariable = "PINFOLD_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "":
		os.Exit(m.Run())
	case "report":
		fmt.Print(report())
	case "daemon":
		serve(Reset)
	case "pinder":
		serve(ResetForContainers)
	}
}

func serve(reset func() error) {
	for _, do := range []func() error{reset, CloseOnExec} {
		if err := do(); err != nil {
			fmt.Println("reset:", err)
		}
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVariable+"=report")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Println(err)
	}
}

// report is a line for each attribute.
func report() string {
	var b strings.Builder
	status, err := readStatus()
	fmt.Fprintln(&b, "signals", status, err)
	old := unix.Umask(0)
	fmt.Fprintf(&b, "umask %o\n", old)
	policy, err := unix.SchedGetAttr(0, 0)
	fmt.Fprintln(&b, "scheduling", policy.Policy, policy.Nice, policy.Priority, policy.Flags&unix.SCHED_FLAG_RESET_ON_FORK, err)
	var cpus unix.CPUSet
	err = unix.SchedGetaffinity(0, &cpus)
	fmt.Fprintln(&b, "processors", cpus.Count(), err)
	priority, err := call(unix.SYS_IOPRIO_GET, 1, 0)
	fmt.Fprintln(&b, "input and output", priority, err)
	slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	fmt.Fprintln(&b, "timer slack", slack, err)
	var mode int32
	_, _, _ = unix.RawSyscall6(unix.SYS_GET_MEMPOLICY, uintptr(unsafe.Pointer(&mode)), 0, 0, 0, 0, 0)
	fmt.Fprintln(&b, "memory policy", mode)
	personality, err := call(unix.SYS_PERSONALITY, 0xffffffff)
	fmt.Fprintln(&b, "personality", personality, err)
	_, err = unix.FcntlInt(9, unix.F_GETFD, 0)
	fmt.Fprintln(&b, "descriptor 9", err)
	fmt.Fprintln(&b, "environment", os.Getenv(resetVariable))
	return b.String()
}

// inherits starts a service with attributes of this thread, after a shell has set others. It
// returns the attributes of the service's child.
func inherits(t *testing.T, role, shell string, set func() error) string {
	t.Helper()
	result := make(chan string)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := set(); err != nil {
			result <- "set: " + err.Error()
			return
		}
		self, err := os.Executable()
		if err != nil {
			result <- err.Error()
			return
		}
		cmd := exec.Command("sh", "-c", shell+"\nexec "+self)
		cmd.Env = append(os.Environ(), roleVariable+"="+role)
		out, err := cmd.CombinedOutput()
		if err != nil {
			out = fmt.Appendln(out, err)
		}
		result <- string(out)
	}()
	return <-result
}

func nothing() error { return nil }

// forBoth are the attributes that neither service passes on.
var forBoth = map[string]struct {
	shell string
	set   func() error
}{
	"umask 0":         {"umask 0", nothing},
	"umask 077":       {"umask 077", nothing},
	"ignored signals": {"trap '' HUP INT QUIT PIPE TSTP TTIN TTOU CHLD USR1 TERM", nothing},
	"blocked signals": {"", func() error {
		var all unix.Sigset_t
		for i := range all.Val {
			all.Val[i] = ^uint64(0)
		}
		return unix.PthreadSigmask(unix.SIG_SETMASK, &all, nil)
	}},
	"an open descriptor": {"exec 9</dev/null", nothing},
}

// forPinder are the attributes that pinder does not pass on to containers. The operator may choose
// them for the daemon.
var forPinder = map[string]func() error{
	"a real-time policy": func() error {
		return unix.SchedSetAttr(0, &unix.SchedAttr{Policy: unix.SCHED_FIFO, Priority: 1}, 0)
	},
	"a policy that is reset on fork": func() error {
		return unix.SchedSetAttr(0, &unix.SchedAttr{Policy: unix.SCHED_BATCH, Flags: unix.SCHED_FLAG_RESET_ON_FORK}, 0)
	},
	"the idle policy": func() error { return unix.SchedSetAttr(0, &unix.SchedAttr{Policy: unix.SCHED_IDLE}, 0) },
	"low priority":    func() error { return unix.SchedSetAttr(0, &unix.SchedAttr{Nice: 10}, 0) },
	"high priority":   func() error { return unix.SchedSetAttr(0, &unix.SchedAttr{Nice: -10}, 0) },
	"one processor": func() error {
		var one unix.CPUSet
		one.Set(0)
		return unix.SchedSetaffinity(0, &one)
	},
	"idle input and output": func() error { _, err := call(unix.SYS_IOPRIO_SET, 1, 0, 3<<13); return err },
	"timer slack":           func() error { return unix.Prctl(unix.PR_SET_TIMERSLACK, 1_000_000, 0, 0, 0) },
	"memory interleaved": func() error {
		nodes := uint64(1)
		_, _, errno := unix.RawSyscall(unix.SYS_SET_MEMPOLICY, 3, uintptr(unsafe.Pointer(&nodes)), 64)
		if errno == unix.ENOSYS || errno == 0 {
			return nil
		}
		return errno
	},
	"fixed addresses": func() error { _, err := call(unix.SYS_PERSONALITY, 0x0040000); return err },
}

func TestWhatAStarterSetIsNotPassedOn(t *testing.T) {
	testroot.Need(t)
	want := inherits(t, "pinder", "", nothing)
	for _, role := range []string{"daemon", "pinder"} {
		for name, c := range forBoth {
			t.Run(role+", "+name, func(t *testing.T) {
				if got := inherits(t, role, c.shell, c.set); got != want {
					t.Errorf("got\n%swant\n%s", got, want)
				}
			})
		}
	}
	for name, set := range forPinder {
		t.Run("pinder, "+name, func(t *testing.T) {
			got := inherits(t, "pinder", "", set)
			if strings.HasPrefix(got, "set: ") {
				t.Skip(got) // the machine takes this right away from root
			}
			if got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
}

func TestAllOfItTogetherIsNotPassedOn(t *testing.T) {
	testroot.Need(t)
	var shell strings.Builder
	for _, name := range []string{"umask 077", "ignored signals", "an open descriptor"} {
		fmt.Fprintln(&shell, forBoth[name].shell)
	}
	want := inherits(t, "pinder", "", nothing)
	got := inherits(t, "pinder", shell.String(), func() error {
		for _, name := range []string{"idle input and output", "one processor", "low priority", "fixed addresses"} {
			if err := forPinder[name](); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return forBoth["blocked signals"].set()
	})
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestTheDaemonKeepsThePriorityThatItsOperatorGave(t *testing.T) {
	got := inherits(t, "daemon", "", forPinder["low priority"])
	if !strings.Contains(got, "scheduling 0 10 ") {
		t.Errorf("got\n%s", got)
	}
}
