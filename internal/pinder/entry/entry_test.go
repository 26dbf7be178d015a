package entry

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/spawn"
)

// ordinary is a process as Pinfold makes it.
func ordinary() map[string]any {
	return map[string]any{
		"user": map[string]any{"uid": 0, "gid": 0}, "args": []string{"true"}, "cwd": "/", "env": []string{"PATH=/bin:/usr/bin", "HOME=/root"},
		"capabilities": map[string]any{"bounding": []string{"CAP_CHOWN"}},
	}
}

func parse(t *testing.T, p map[string]any) (*Process, error) {
	t.Helper()
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return ParseProcess(data)
}

func TestAProcessThatIsNotWhollyUnderstoodIsLeftToTheRuntime(t *testing.T) {
	if _, err := parse(t, ordinary()); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(p map[string]any){
		"an unknown field":      func(p map[string]any) { p["news"] = 1 },
		"an unknown field of":   func(p map[string]any) { p["user"].(map[string]any)["news"] = 1 },
		"scheduler":             func(p map[string]any) { p["scheduler"] = map[string]any{"policy": "SCHED_FIFO"} },
		"I/O priority":          func(p map[string]any) { p["ioPriority"] = map[string]any{"class": "IOPRIO_CLASS_IDLE"} },
		"affinity":              func(p map[string]any) { p["execCPUAffinity"] = map[string]any{"initial": "0"} },
		"SELinux":               func(p map[string]any) { p["selinuxLabel"] = "a:b:c:d" },
		"Windows":               func(p map[string]any) { p["commandLine"] = "x" },
		"a user's name":         func(p map[string]any) { p["user"].(map[string]any)["username"] = "x" },
		"no capabilities":       func(p map[string]any) { delete(p, "capabilities") },
		"no program":            func(p map[string]any) { p["args"] = []string{} },
		"an empty program":      func(p map[string]any) { p["args"] = []string{""} },
		"a relative directory":  func(p map[string]any) { p["cwd"] = "tmp" },
		"NUL in an argument":    func(p map[string]any) { p["args"] = []string{"a\x00b"} },
		"NUL in a variable":     func(p map[string]any) { p["env"] = []string{"A=\x00"} },
		"NUL in the directory":  func(p map[string]any) { p["cwd"] = "/\x00" },
		"an unknown limit":      func(p map[string]any) { p["rlimits"] = []map[string]any{{"type": "RLIMIT_NEWS"}} },
		"a number out of range": func(p map[string]any) { p["user"].(map[string]any)["uid"] = 1 << 32 },
		"a negative number":     func(p map[string]any) { p["user"].(map[string]any)["gid"] = -1 },
	} {
		p := ordinary()
		change(p)
		if _, err := parse(t, p); !errors.Is(err, ErrRuntime) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, text := range []string{"", "null", "[]", "{", `{"args":["a"],"cwd":"/","capabilities":{}} {}`} {
		if _, err := ParseProcess([]byte(text)); !errors.Is(err, ErrRuntime) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestTheLastEntryOfAVariableCountsAndHOMEIsNeverEmpty(t *testing.T) {
	for _, c := range []struct {
		in, want []string
		homeless bool
	}{
		{nil, nil, true},
		{[]string{"A=1", "B=", "A=2"}, []string{"B=", "A=2"}, true},
		{[]string{"HOME=/x", "A=1"}, []string{"HOME=/x", "A=1"}, false},
		{[]string{"HOME=", "A=1"}, []string{"A=1"}, true},
		{[]string{"HOME=/x", "HOME="}, nil, true},
		{[]string{"A==", "HOME=="}, []string{"A==", "HOME=="}, false},
	} {
		got, homeless, err := environment(c.in)
		if err != nil || !slices.Equal(got, c.want) || homeless != c.homeless {
			t.Errorf("%q: %q %v %v", c.in, got, homeless, err)
		}
	}
	for _, bad := range []string{"", "A", "=x"} {
		if _, _, err := environment([]string{bad}); !errors.Is(err, ErrRuntime) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestTheProgramIsLookedForInPATHUnlessItHasASlash(t *testing.T) {
	for _, c := range []struct {
		name, path string
		want       []string
	}{
		{"true", "PATH=/bin:/usr/bin/", []string{"/bin/true", "/usr/bin/true"}},
		{"true", "PATH=/", []string{"/true"}},
		{"./true", "PATH=/bin", []string{"./true"}},
		{"/bin/true", "A=1", []string{"/bin/true"}},
	} {
		if got, err := programs(c.name, []string{c.path}); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%v: %q %v", c, got, err)
		}
	}
	for _, path := range []string{"A=1", "PATH=", "PATH=bin", "PATH=/bin:", "PATH=/bin:.", "PATH=/x" + strings.Repeat(":/x", maxPrograms)} {
		if got, err := programs("true", []string{path}); !errors.Is(err, ErrRuntime) {
			t.Errorf("%q: %q %v", path, got, err)
		}
	}
}

// root makes a container's root with this /etc/passwd and returns a descriptor of it.
func root(t *testing.T, passwd string) (fd int, dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte(passwd), 0o644); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd, dir
}

func TestHomeIsThatOfTheUserInTheContainersPasswd(t *testing.T) {
	fd, _ := root(t, "root:x:0:0:root:/root:/bin/sh\n\n# a remark\nweb:x:7:7::/srv:\nagain:x:7:7::/other:\nlast:x:9:9::/last:/bin/sh")
	for uid, want := range map[uint32]string{0: "/root", 7: "/srv", 9: "/last", 8: "/"} {
		if got, err := home(fd, uid); err != nil || got != want {
			t.Errorf("%d: %q %v", uid, got, err)
		}
	}
}

func TestAPasswdThatMightNotAnswerOrIsStrangeIsLeftToTheRuntime(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"a FIFO":          func(path string) error { return unix.Mkfifo(path, 0o644) },
		"a directory":     func(path string) error { return os.Mkdir(path, 0o755) },
		"a magic link":    func(path string) error { return os.Symlink("/proc/self/exe", path) },
		"too large":       func(path string) error { return os.WriteFile(path, make([]byte, maxPasswd+1), 0o644) },
		"a strange line":  func(path string) error { return os.WriteFile(path, []byte("a:b:c\n"), 0o644) },
		"a strange ID":    func(path string) error { return os.WriteFile(path, []byte("a:x:y:0::/:\n"), 0o644) },
		"a huge ID":       func(path string) error { return os.WriteFile(path, []byte("a:x:4294967296:0::/:\n"), 0o644) },
		"a loop of links": func(path string) error { return os.Symlink("passwd", path) },
	} {
		fd, dir := root(t, "")
		path := filepath.Join(dir, "etc/passwd")
		if err := errors.Join(os.Remove(path), change(path)); err != nil {
			t.Fatal(err)
		}
		got, err := home(fd, 5)
		if name == "a magic link" { // there is no /proc below this root
			if err != nil || got != "/" {
				t.Errorf("%s: %q %v", name, got, err)
			}
			continue
		}
		if !errors.Is(err, ErrRuntime) {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
	fd, dir := root(t, "")
	if err := os.RemoveAll(filepath.Join(dir, "etc")); err != nil {
		t.Fatal(err)
	}
	if got, err := home(fd, 0); err != nil || got != "/" {
		t.Errorf("without /etc: %q %v", got, err)
	}
	if err := os.Symlink("/", filepath.Join(dir, "etc")); err != nil { // in the container's root, not in ours
		t.Fatal(err)
	}
	if got, err := home(fd, 0); err != nil || got != "/" {
		t.Errorf("with a link to the root: %q %v", got, err)
	}
}

func TestCapabilitiesHaveTheKernelsNumbers(t *testing.T) {
	if len(capabilityNames) != unix.CAP_LAST_CAP+1 {
		t.Errorf("%d names, the kernel has %d", len(capabilityNames), unix.CAP_LAST_CAP+1)
	}
	for name, want := range map[string]uint64{
		"CAP_CHOWN": 1, "CAP_SYS_PTRACE": 1 << unix.CAP_SYS_PTRACE, "CAP_SETFCAP": 1 << unix.CAP_SETFCAP,
		"CAP_CHECKPOINT_RESTORE": 1 << unix.CAP_CHECKPOINT_RESTORE, "CAP_NEWS": 0, "chown": 0,
	} {
		if got := set([]string{name}, 63); got != want {
			t.Errorf("%s: %b", name, got)
		}
	}
	if set([]string{"CAP_BPF"}, unix.CAP_BPF-1) != 0 {
		t.Error("a capability that the kernel does not know is set")
	}
}

func TestWhoMayTraceIsKnown(t *testing.T) {
	for _, c := range []struct {
		caps *Capabilities
		want bool
	}{
		{nil, true},
		{&Capabilities{}, false},
		{&Capabilities{Bounding: []string{"CAP_CHOWN"}}, false},
		{&Capabilities{Bounding: []string{"CAP_SYS_PTRACE"}}, true},
		{&Capabilities{Permitted: []string{"CAP_SYS_ADMIN"}}, true},
		{&Capabilities{Inheritable: []string{"CAP_SYS_PTRACE"}}, true},
	} {
		if got := c.caps.MayTrace(); got != c.want {
			t.Errorf("%v: %v", c.caps, got)
		}
	}
}

// written returns the names of the calls for a process.
func written(t *testing.T, change func(p map[string]any, c *Container, e *Ends)) []string {
	t.Helper()
	raw, c := ordinary(), &Container{ID: "a", Pidfd: 40, Namespaces: unix.CLONE_NEWNS}
	e := &Ends{Streams: [3]int{10, 11, 12}, Terminal: -1, Ready: 20, Gate: 21, Groups: []int{30}}
	change(raw, c, e)
	p, err := parse(t, raw)
	if err != nil {
		t.Fatal(err)
	}
	env, _, err := environment(p.Env)
	if err != nil {
		t.Fatal(err)
	}
	l, err := spawn.NewList(Memory(p, c, env))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := Write(l, p, c, e, env); err != nil {
		t.Fatal(err)
	}
	return l.Names()
}

// inOrder checks that the names are among the calls, in this order.
func inOrder(t *testing.T, calls []string, names ...string) {
	t.Helper()
	at := 0
	for _, name := range names {
		i := slices.Index(calls[at:], name)
		if i < 0 {
			t.Fatalf("%q is not behind %q in\n%s", name, calls[max(at-1, 0)], strings.Join(calls, "\n"))
		}
		at += i + 1
	}
}

func TestTheListHasTheOrderThatSafetyNeeds(t *testing.T) {
	calls := written(t, func(p map[string]any, c *Container, _ *Ends) {
		one := 1
		c.OOMScoreAdj = &one
		p["apparmorProfile"] = "x"
		p["rlimits"] = []map[string]any{{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1}}
	})
	if calls[0] != "forbid tracing" || calls[1] != "close descriptors" {
		t.Error(calls[:2])
	}
	inOrder(t, calls,
		"join a cgroup", "write /proc/self/oom_score_adj", "write /proc/self/attr/apparmor/exec", "take a stream", "close a stream", "set RLIMIT_NOFILE",
		"join the namespaces", "close the pidfd", "become root", "forbid tracing", "join a session keyring",
		"enter the directory", "keep the capabilities", "set the groups", "set the group ID", "set the user ID", "forbid tracing",
		"name the directory", "the directory is below the root", "set the capabilities", "clear the ambient set",
		"say that all is ready", "wait at the gate", "close the rest at the program's start", "unblock signals",
		"look for /bin/true", "execute /bin/true", "look for /usr/bin/true", "execute /usr/bin/true", "find true in PATH")
}

// Without no_new_privs a filter needs a right that the process gives up; with it, as few calls as possible are made
// under the filter.
func TestTheFilterIsInstalledWhereTheRuntimeDoesIt(t *testing.T) {
	const install = "install the seccomp filter"
	inOrder(t, written(t, func(_ map[string]any, c *Container, _ *Ends) { c.Filter = &Filter{Program: make([]byte, 8)} }),
		"join the namespaces", install, "keep the capabilities", "set the user ID")
	calls := written(t, func(p map[string]any, c *Container, _ *Ends) {
		p["noNewPrivileges"], c.Filter = true, &Filter{Program: make([]byte, 8)}
	})
	inOrder(t, calls, "forbid new privileges", "set the capabilities", "wait at the gate", install, "execute /bin/true")
	if n := slices.Index(calls, install); strings.Count(strings.Join(calls, "\n"), install) != 1 || n < slices.Index(calls, "unblock signals") {
		t.Error(calls)
	}
}

func TestATerminalIsTheContainersOwnAndTheStreamsAreNot(t *testing.T) {
	calls := written(t, func(p map[string]any, _ *Container, e *Ends) { p["terminal"], e.Terminal = true, 22 })
	inOrder(t, calls, "join the namespaces", "begin a session", "become root", "open /dev/pts/ptmx", "/dev/pts is a devpts", "open the terminal",
		"send the terminal", "close the master", "close the socket", "take the terminal", "make it the session's terminal", "set the user ID")
	if slices.Contains(calls, "take a stream") {
		t.Error(calls)
	}
}

func TestMemoryIsEnoughForLongArguments(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	written(t, func(p map[string]any, c *Container, _ *Ends) {
		p["args"] = []string{long[:4000], long, long}
		p["env"] = []string{"PATH=/a" + strings.Repeat(":/"+long[:200], maxPrograms-1), "HOME=/", "B=" + long}
		c.Filter = &Filter{Program: make([]byte, 8*4096)}
	})
}

func FuzzParseProcess(f *testing.F) {
	data, _ := json.Marshal(ordinary())
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParseProcess(data)
		if err != nil {
			if !errors.Is(err, ErrRuntime) {
				t.Error(err)
			}
			return
		}
		if env, _, err := environment(p.Env); err == nil {
			_, _ = programs(p.Args[0], env)
		}
	})
}
