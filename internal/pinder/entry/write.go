package entry

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/spawn"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// Container is what is known of the container.
type Container struct {
	ID string
	// Pidfd is one of the container's init.
	Pidfd int
	// Namespaces are those that the init has, and we have not: flags of setns(2).
	Namespaces int
	// Umask is the container's; nil: it has none of its own.
	Umask *uint32
	// OOMScoreAdj is the container's: runc does not look at that of the exec's process.
	OOMScoreAdj *int
	// Rlimits are set before the process's own, as far as that is possible.
	Rlimits []Rlimit
	// Filter is the seccomp program; nil: there is none.
	Filter *Filter
}

// Filter is a seccomp program.
type Filter struct {
	// Program has the instructions as the kernel reads them (struct sock_filter).
	Program []byte
	// Flags are those of seccomp(2).
	Flags uintptr
}

// Ends are the descriptors that the child gets. All others are closed in it before anything else.
type Ends struct {
	// Streams are standard input, output and error. With a terminal they are not used.
	Streams [3]int
	// Terminal is a socket that the terminal's master is sent to; -1: there is no terminal.
	Terminal int
	// Groups are open files "tasks" of version 1 hierarchies.
	Groups []int
	// Ready gets one byte when all is done but the execution of the program. It is closed by that.
	Ready int
	// Gate: a byte is read from it before the program is executed. At its end the child ends.
	Gate int
}

// writer writes one list.
type writer struct {
	l       *spawn.List
	p       *Process
	c       *Container
	e       *Ends
	env     []string
	lastCap int
}

// Memory is how many bytes a list of the process needs.
func Memory(p *Process, c *Container, env []string) int {
	n := 64<<10 + len(p.Cwd)
	for _, s := range slices.Concat(p.Args, env) {
		n += len(s) + 32
	}
	if c.Filter != nil {
		n += len(c.Filter.Program)
	}
	return n + maxPrograms*(len(p.Args[0])+4<<10)
}

// Write writes the list. env is the environment that Environment has made. ErrRuntime if the runtime has to do it.
func Write(l *spawn.List, p *Process, c *Container, e *Ends, env []string) error {
	last, err := lastCapability()
	if err != nil {
		return leave("the last capability: %v", err)
	}
	w := &writer{l: l, p: p, c: c, e: e, env: env, lastCap: min(last, 63)}
	files, err := programs(p.Args[0], env)
	if err != nil {
		return err
	}
	w.close()
	w.outside()
	w.join()
	w.become()
	w.execute(files)
	return nil
}

// close closes all descriptors that the child does not need. It makes the child one that only root may trace:
// whoever may do that could read what the child has of our memory.
func (w *writer) close() {
	w.l.Call("forbid tracing", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	keep := append([]int{0, 1, 2, w.c.Pidfd, w.e.Ready, w.e.Gate}, w.e.Groups...)
	if w.e.Terminal >= 0 {
		keep = append(keep, w.e.Terminal)
	} else {
		keep = append(keep, w.e.Streams[:]...)
	}
	slices.Sort(keep)
	keep = slices.Compact(keep)
	for i, fd := range keep {
		last := ^uintptr(0) >> 32
		if i+1 < len(keep) {
			last = uintptr(keep[i+1]) - 1
		}
		if first := uintptr(fd) + 1; first <= last {
			w.l.Call("close descriptors", unix.SYS_CLOSE_RANGE, first, last, 0)
		}
	}
}

// outside does what needs the node's own rights, or its /proc.
func (w *writer) outside() {
	zero := w.l.String("0")
	for _, fd := range w.e.Groups {
		// "0" in "tasks" moves the writing thread alone, and the kernel then takes no lock for all threads of the node
		// (kernel/cgroup/cgroup.c, cgroup_procs_write_start).
		w.l.Call("join a cgroup", unix.SYS_WRITE, uintptr(fd), zero, 1).Want(1)
		w.l.Call("close the cgroup's file", unix.SYS_CLOSE, uintptr(fd))
	}
	all := w.l.Bytes(slices.Repeat([]byte{0xff}, 128))
	w.l.Call("use all processors of the cgroup", unix.SYS_SCHED_SETAFFINITY, 0, 128, all).Soft()
	if w.c.OOMScoreAdj != nil {
		w.write("/proc/self/oom_score_adj", fmt.Sprint(*w.c.OOMScoreAdj))
	}
	if w.p.ApparmorProfile != "" {
		w.write("/proc/self/attr/apparmor/exec", "exec "+w.p.ApparmorProfile)
	}
	if w.e.Terminal < 0 {
		for to, from := range w.e.Streams {
			w.l.Call("take a stream", unix.SYS_DUP3, uintptr(from), uintptr(to), 0)
		}
		for _, fd := range w.e.Streams {
			w.l.Call("close a stream", unix.SYS_CLOSE, uintptr(fd))
		}
	}
	for _, l := range w.c.Rlimits {
		w.limit(l).Soft()
	}
	for _, l := range w.p.Rlimits {
		w.limit(l)
	}
}

func (w *writer) limit(l Rlimit) spawn.Call {
	pair := binary.NativeEndian.AppendUint64(nil, l.Soft)
	pair = binary.NativeEndian.AppendUint64(pair, l.Hard)
	return w.l.Call("set "+l.Type, unix.SYS_PRLIMIT64, 0, uintptr(wire.RlimitResources[l.Type]), w.l.Bytes(pair), 0)
}

// write writes a text to a file.
func (w *writer) write(path, text string) {
	open := w.l.Call("open "+path, unix.SYS_OPENAT, atCwd, w.l.String(path), unix.O_WRONLY|unix.O_CLOEXEC)
	w.l.Call("write "+path, unix.SYS_WRITE, 0, w.l.String(text), uintptr(len(text))).Want(uintptr(len(text))).From(open)
	w.l.Call("close "+path, unix.SYS_CLOSE).From(open)
}

// atCwd is AT_FDCWD as an argument.
const atCwd = ^uintptr(99)

// join enters the namespaces. No descriptor of the node's is left afterwards but the ends of
// two pipes.
func (w *writer) join() {
	if w.c.Namespaces != 0 {
		w.l.Call("join the namespaces", unix.SYS_SETNS, uintptr(w.c.Pidfd), uintptr(w.c.Namespaces))
	}
	w.l.Call("close the pidfd", unix.SYS_CLOSE, uintptr(w.c.Pidfd))
	w.l.Call("begin a session", unix.SYS_SETSID)
	w.l.Call("become root's group", unix.SYS_SETGID, 0)
	w.l.Call("become root", unix.SYS_SETUID, 0)
	// A change of the user makes the process traceable as fs.suid_dumpable says (kernel/cred.c, commit_creds).
	w.l.Call("forbid tracing", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	w.l.Call("join a session keyring", unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, w.l.String("_ses."+w.c.ID))
	if w.e.Terminal >= 0 {
		w.terminal()
		return
	}
	for fd := range uintptr(3) {
		// Pinder has made them the user's where it was told whose they are (wire.Exec.Owner).
		w.l.Call("give a stream to the user", unix.SYS_FCHOWN, fd, uintptr(w.p.User.UID), ^uintptr(0)).Soft()
	}
}

// become takes the process's rights, and gives up those that it does not have.
func (w *writer) become() {
	if w.p.NoNewPrivileges {
		w.l.Call("forbid new privileges", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	if w.c.Umask != nil {
		w.l.Call("set the umask", unix.SYS_UMASK, uintptr(*w.c.Umask))
	}
	if !w.p.NoNewPrivileges {
		w.filter() // later it may not any more
	}
	cwd := w.l.String(w.p.Cwd)
	enter := w.l.Call("enter the directory", unix.SYS_CHDIR, cwd).Soft()
	w.dropBounding(w.p.Capabilities)
	w.l.Call("keep the capabilities", unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0, 0, 0)
	var groups []byte
	for _, gid := range w.p.User.AdditionalGIDs {
		groups = binary.NativeEndian.AppendUint32(groups, gid)
	}
	w.l.Call("set the groups", unix.SYS_SETGROUPS, uintptr(len(w.p.User.AdditionalGIDs)), w.l.Bytes(groups))
	w.l.Call("set the group ID", unix.SYS_SETGID, uintptr(w.p.User.GID))
	w.l.Call("set the user ID", unix.SYS_SETUID, uintptr(w.p.User.UID))
	w.l.Call("forbid tracing", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	w.l.Call("enter the directory "+w.p.Cwd, unix.SYS_CHDIR, cwd).Unless(enter)
	// The kernel writes "(unreachable)" before a directory that is not below the root.
	name, _ := w.l.Buffer(unix.PathMax)
	w.l.Call("name the directory", unix.SYS_GETCWD, name, unix.PathMax)
	w.l.Byte("the directory is below the root", name, '/')
	w.l.Call("keep capabilities no longer", unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 0, 0, 0, 0)
	w.setCapabilities(w.p.Capabilities)
}

// filter installs the seccomp program.
func (w *writer) filter() {
	f := w.c.Filter
	if f == nil {
		return
	}
	// struct sock_fprog: a length, padding, an address.
	program := binary.NativeEndian.AppendUint64(nil, uint64(len(f.Program)/8))
	program = w.l.Address(program, w.l.Bytes(f.Program))
	w.l.Call("install the seccomp filter", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, f.Flags, w.l.Bytes(program))
}

// execute says that all is ready, waits, and executes the first of the files that can be executed. No signal is blocked
// in it.
func (w *writer) execute(files []string) {
	at, _ := w.l.Buffer(8)
	w.l.Call("say that all is ready", unix.SYS_WRITE, uintptr(w.e.Ready), w.l.String("R"), 1).Want(1)
	w.l.Call("wait at the gate", unix.SYS_READ, uintptr(w.e.Gate), at, 1).Want(1)
	// What is left may be open only until the program runs.
	w.l.Call("close the rest at the program's start", unix.SYS_CLOSE_RANGE, 3, ^uintptr(0)>>32, unix.CLOSE_RANGE_CLOEXEC)
	w.l.Call("unblock signals", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, w.l.Bytes(make([]byte, 8)), 0, 8)
	if w.p.NoNewPrivileges {
		w.filter()
	}
	argv, envp := w.l.Strings(w.p.Args), w.l.Strings(w.env)
	for _, file := range files {
		path := w.l.String(file)
		if len(files) == 1 {
			w.l.Call("execute "+file, unix.SYS_EXECVE, path, argv, envp)
			return
		}
		found := w.l.Call("look for "+file, unix.SYS_FACCESSAT, atCwd, path, unix.X_OK).Soft()
		w.l.Call("execute "+file, unix.SYS_EXECVE, path, argv, envp).If(found)
	}
	w.l.Call("find "+w.p.Args[0]+" in PATH", unix.SYS_CLOSE, ^uintptr(0))
}
