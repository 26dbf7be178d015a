package ocispec

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/opencontainers/runtime-spec/specs-go"
)

const (
	defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	defaultTerm = "xterm"
)

// ExecOptions is what CRI's Exec and ExecSync say about the process to run.
type ExecOptions struct {
	Cmd []string
	TTY bool
}

// Exec returns the process of an exec in a container whose configuration is base: another command,
// with the container's user, environment, capabilities, limits and restrictions. base is not
// changed. ErrInvalidArgument if the command is empty or cannot be passed to execve(2).
func Exec(base *specs.Spec, r ExecOptions) (*specs.Process, error) {
	if base == nil || base.Process == nil {
		return nil, lacking("container", "its configuration has no process")
	}
	if len(r.Cmd) == 0 || r.Cmd[0] == "" {
		return nil, invalid("cmd", "%q has no command", r.Cmd)
	}
	if err := checkArgs("cmd", r.Cmd); err != nil {
		return nil, err
	}
	p := *base.Process
	p.Args = slices.Clone(r.Cmd)
	p.Terminal = r.TTY
	p.ConsoleSize = nil
	p.User.AdditionalGids = slices.Clone(p.User.AdditionalGids)
	p.Rlimits = slices.Clone(p.Rlimits)
	if p.Capabilities != nil {
		caps := *p.Capabilities
		p.Capabilities = &caps
	}
	env := newEnviron(p.Env)
	if r.TTY && !env.has("TERM") {
		env.set("TERM", defaultTerm)
	}
	p.Env = env.list
	return &p, nil
}

func process(h Host, c Container) (*specs.Process, error) {
	args, err := arguments(c)
	if err != nil {
		return nil, err
	}
	user, err := EffectiveUser(c)
	if err != nil {
		return nil, err
	}
	caps, err := capabilities(h, c.securityContext(), c.inUserNS())
	if err != nil {
		return nil, err
	}
	oom := max(int(c.Config.GetLinux().GetResources().GetOomScoreAdj()), h.OOMScoreAdjMin)
	return &specs.Process{
		Terminal:        c.Config.GetTty(),
		User:            user,
		Args:            args,
		Env:             environment(h, c),
		Cwd:             workingDir(c),
		Capabilities:    caps,
		Rlimits:         rlimits(h),
		NoNewPrivileges: c.securityContext().GetNoNewPrivs(),
		// Always set: otherwise the process would inherit the daemon's.
		OOMScoreAdj: &oom,
	}, nil
}

// arguments applies Kubernetes' rule: command replaces the image's entry point and its command;
// args replace only the image's command.
func arguments(c Container) ([]string, error) {
	command, args := c.Config.GetCommand(), c.Config.GetArgs()
	if len(command) == 0 {
		command = c.Image.Entrypoint
		if len(args) == 0 {
			args = c.Image.Cmd
		}
	}
	all := slices.Concat(command, args)
	if len(all) == 0 || all[0] == "" {
		return nil, invalid("command", "%q: neither the container nor its image has a command", all)
	}
	return all, checkArgs("command", all)
}

// checkArgs refuses what execve(2) would cut short or the JSON of an OCI configuration would
// change.
func checkArgs(field string, args []string) error {
	for i, arg := range args {
		if strings.ContainsRune(arg, 0) {
			return invalid(field, "argument %d, %q, contains a NUL byte", i, arg)
		}
		if !utf8.ValidString(arg) {
			return invalid(field, "argument %d, %q, is not UTF-8, as an OCI configuration must be", i, arg)
		}
	}
	return nil
}

func workingDir(c Container) string {
	dir := c.Config.GetWorkingDir()
	if dir == "" {
		dir = c.Image.WorkingDir
	}
	// An image's directory may be relative to its root.
	return filepath.Join("/", dir)
}

// environment is what every container gets, then the image's variables, then the container's. Later
// ones replace earlier ones. An image's entry without "=" is left out.
func environment(h Host, c Container) []string {
	env := newEnviron(nil)
	env.set("PATH", defaultPath)
	if name := hostname(h, c.Sandbox); name != "" {
		env.set("HOSTNAME", name)
	}
	if c.Config.GetTty() {
		env.set("TERM", defaultTerm)
	}
	for _, entry := range c.Image.Env {
		name, value, ok := strings.Cut(entry, "=")
		if ok && name != "" && utf8.ValidString(entry) && !strings.ContainsRune(entry, 0) {
			env.set(name, value)
		}
	}
	for _, kv := range c.Config.GetEnvs() {
		env.set(kv.GetKey(), string(kv.GetValue()))
	}
	if c.PasswdErr != nil && env.get("HOME") == "" {
		// Without HOME, OCI runtimes would read the file that cannot be read, perhaps a FIFO.
		env.set("HOME", "/")
	}
	return env.list
}

// environ is an environment, in the order in which its variables first appeared.
type environ struct {
	list  []string
	index map[string]int
}

func newEnviron(list []string) environ {
	env := environ{list: slices.Clone(list), index: map[string]int{}}
	for i, entry := range list {
		name, _, _ := strings.Cut(entry, "=")
		env.index[name] = i
	}
	return env
}

func (e *environ) has(name string) bool {
	_, ok := e.index[name]
	return ok
}

func (e *environ) get(name string) string {
	if i, ok := e.index[name]; ok {
		return strings.TrimPrefix(e.list[i], name+"=")
	}
	return ""
}

func (e *environ) set(name, value string) {
	if i, ok := e.index[name]; ok {
		e.list[i] = name + "=" + value
		return
	}
	e.index[name] = len(e.list)
	e.list = append(e.list, name+"="+value)
}

// rlimit is a soft and a hard limit.
type rlimit struct{ soft, hard uint64 }

const unlimited = ^uint64(0)

// defaultRlimits are those of every container. All limits are set, so that none is inherited from
// the daemon's unit and no upgrade changes a workload. What the cgroup limits better (memory,
// processes) is unlimited here. The rest are the kernel's defaults for init (INIT_RLIMITS), except
// the number of open files: runtimes have long set the kernel's fs.nr_open.
var defaultRlimits = map[string]rlimit{
	"RLIMIT_AS":         {unlimited, unlimited},
	"RLIMIT_CORE":       {unlimited, unlimited},
	"RLIMIT_CPU":        {unlimited, unlimited},
	"RLIMIT_DATA":       {unlimited, unlimited},
	"RLIMIT_FSIZE":      {unlimited, unlimited},
	"RLIMIT_LOCKS":      {unlimited, unlimited},
	"RLIMIT_MEMLOCK":    {8 << 20, 8 << 20},
	"RLIMIT_MSGQUEUE":   {819200, 819200},
	"RLIMIT_NICE":       {0, 0},
	"RLIMIT_NOFILE":     {1 << 20, 1 << 20},
	"RLIMIT_NPROC":      {unlimited, unlimited},
	"RLIMIT_RSS":        {unlimited, unlimited},
	"RLIMIT_RTPRIO":     {0, 0},
	"RLIMIT_RTTIME":     {unlimited, unlimited},
	"RLIMIT_SIGPENDING": {unlimited, unlimited},
	"RLIMIT_STACK":      {8 << 20, unlimited},
}

// rlimits returns the default limits below the node's ceilings, sorted by name. Resource limits are
// not bound to a user namespace: to raise one needs CAP_SYS_RESOURCE in the initial one
// (getrlimit(2)). So the ceilings apply to every pod.
func rlimits(h Host) []specs.POSIXRlimit {
	var list []specs.POSIXRlimit
	for _, name := range slices.Sorted(maps.Keys(defaultRlimits)) {
		limit := defaultRlimits[name]
		if ceiling, ok := h.RlimitCeilings[name]; ok {
			limit.hard = min(limit.hard, ceiling)
			limit.soft = min(limit.soft, limit.hard)
		}
		list = append(list, specs.POSIXRlimit{Type: name, Hard: limit.hard, Soft: limit.soft})
	}
	return list
}
