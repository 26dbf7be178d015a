package main

import (
	"context"
	"crypto/rand"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// These are the same for all pods of this command. A kubelet's pod may have the same names: they do
// not identify a pod of this command.
const (
	podNamespace  = "pinfold"
	containerLog  = "container.log"
	ownLabel      = "run.pinfold/made-by"
	ownLabelValue = "pinfold-run"
)

// runOptions are the flags and arguments of pinfold run.
type runOptions struct {
	pod       podOptions
	container containerOptions
	keep      bool
	remove    bool
	pull      bool
	grace     seconds
}

// podOptions are those of the pod.
type podOptions struct {
	name        string
	hostUsers   bool
	usernsRange string
	hostNetwork bool
	handler     string
	logDir      string
	ports       values[*runtimeapi.PortMapping]
	labels      values[label]
}

// containerOptions are those of its container.
type containerOptions struct {
	image      string
	command    []string
	entrypoint entrypoint
	workDir    string
	stdin, tty bool
	env        values[*runtimeapi.KeyValue]
	envFiles   []string
	volumes    values[*runtimeapi.Mount]
	memory     memory
	cpus       cpus
	user       user
}

const runLong = `Run one container in a new pod. The pod is confined (seccomp, masked paths) and has a user namespace
of its own; --host-users takes that away. The output is shown as it comes, and at the end the pod is
removed and the container's exit code returned.

The words after -- are the arguments of the image's entrypoint, or the whole command if it has none;
--entrypoint replaces it.

SIGINT (Ctrl-C), SIGTERM and SIGHUP stop the container: it gets TERM (or the image's stop signal), and
KILL after --stop-timeout. A second signal (later than 0.1 s) kills it at once. Then all that was made is
removed, also if the signal comes before the container runs; while the daemon makes the pod, that waits
until it is made. A third signal ends the command at once; what it leaves is listed by "pinfold ps
--all" and removed by "pinfold rm". So it is if this command is killed (SIGKILL).
With --tty, Ctrl-C goes to the container's terminal instead.`

const runExample = `  pinfold run docker.io/library/busybox:latest -- id
  pinfold run -it docker.io/library/busybox:latest -- sh
  pinfold run --keep --name web -p 8080:80 -v /srv/www:/www:ro registry.example/web:1
  pinfold run -m 256Mi --cpus 1.5 -e MODE=batch --user 1000 registry.example/job:1 -- --all
  tar c . | pinfold run -i docker.io/library/busybox:latest -- tar t`

func runCommand(t *tool) *cobra.Command {
	o := &runOptions{}
	cmd := &cobra.Command{
		Use:               "run [FLAGS] IMAGE [-- COMMAND [ARG]...]",
		Short:             "Run one container in a new pod, and remove the pod at its end",
		Long:              runLong,
		Example:           runExample,
		Args:              wants(1, -1, "one image, and after -- the command"),
		ValidArgsFunction: t.completer(1, imageNames),
	}
	o.pod.addTo(cmd.Flags())
	o.container.addTo(cmd.Flags())
	o.addTo(cmd.Flags())
	cmd.RunE = t.handlesSignals(func(ctx context.Context, t *tool, args []string) error {
		if err := o.take(cmd.Flags(), args); err != nil {
			return err
		}
		return run(ctx, t, o)
	})
	return cmd
}

func (o *runOptions) addTo(flags *pflag.FlagSet) {
	o.grace = seconds(defaultGrace)
	flags.BoolVar(&o.keep, "keep", false, "return when the container runs, print the pod's ID, and keep the pod")
	flags.BoolVar(&o.remove, "rm", true, "remove the pod when the container has ended; --rm=false keeps it, with its log")
	flags.BoolVar(&o.pull, "pull", false, "pull the image even if it is on the node")
	flags.Var(&o.grace, "stop-timeout", "`time` that the container has to end after a signal, before KILL: seconds, or a duration as 1m30s")
}

func (o *podOptions) addTo(flags *pflag.FlagSet) {
	o.ports = values[*runtimeapi.PortMapping]{kind: "port", parse: parsePort}
	o.labels = values[label]{kind: "label", parse: parseLabel}
	flags.StringVar(&o.name, "name", "", "`name` of the pod and its container (default: a random one)")
	flags.BoolVar(&o.hostUsers, "host-users", false, "use the node's own user ids: no user namespace, so root in the pod is the node's root")
	flags.Bool("userns", true, "give the pod a user namespace of its own (the default); the opposite of --host-users")
	flags.StringVar(&o.usernsRange, "userns-range", defaultRange, "`FIRST:COUNT` of host ids for the user namespace, used if /etc/subuid has no line for pinfold or root")
	flags.BoolVar(&o.hostNetwork, "host-network", false, "use the node's network")
	flags.VarP(&o.ports, "publish", "p", "`[IP:]HOST:CONTAINER[/PROTOCOL]`: a port of the node that leads to one of the container (repeatable); the node's network needs the plugin portmap")
	flags.VarP(&o.labels, "label", "l", "`KEY=VALUE`: a label of the pod and the container (repeatable)")
	flags.StringVar(&o.handler, "runtime", "", "runtime `handler` (default: that of the daemon)")
	flags.StringVar(&o.logDir, "log-dir", "", "`directory` for the log (default: a new one in $TMPDIR or /tmp)")
}

func (o *containerOptions) addTo(flags *pflag.FlagSet) {
	o.env = values[*runtimeapi.KeyValue]{kind: "variable", parse: parseEnv}
	o.volumes = values[*runtimeapi.Mount]{kind: "volume", parse: parseVolume}
	flags.BoolVarP(&o.stdin, "interactive", "i", false, "pass standard input to the container, until its end")
	flags.BoolVarP(&o.tty, "tty", "t", false, "give the container a terminal; with -i this command's terminal is passed through")
	flags.VarP(&o.env, "env", "e", "`KEY=VALUE`: a variable of the environment, or KEY for the value that this command has (repeatable)")
	flags.StringArrayVar(&o.envFiles, "env-file", nil, "a `file` with a variable in each line, as for --env; # begins a comment (repeatable)")
	flags.VarP(&o.volumes, "volume", "v", "`HOST:CONTAINER[:OPTIONS]`: a file or directory of the node (repeatable); a path that does not exist becomes a directory. OPTIONS: ro, rw, rprivate, rslave, rshared")
	flags.VarP(&o.memory, "memory", "m", "limit of memory, a `size` as in a pod's specification: 256Mi, 1.5G")
	flags.Var(&o.cpus, "cpus", "limit of processor time, a `number` of processors: 1.5")
	flags.VarP(&o.user, "user", "u", "user of the process, `UID[:GID]` or a name of the image's /etc/passwd")
	flags.StringVarP(&o.workDir, "workdir", "w", "", "working `directory` in the container (default: the image's)")
	flags.Var(&o.entrypoint, "entrypoint", "`program` in place of the image's entrypoint; empty for none")
}

// take checks the flags and takes the arguments.
func (o *runOptions) take(flags *pflag.FlagSet, args []string) error {
	if o.keep && flags.Changed("rm") && o.remove {
		return misuse("run: --keep and --rm contradict each other")
	}
	if o.keep && (o.container.stdin || o.container.tty) {
		return misuse("run: --keep cannot be used with --interactive or --tty")
	}
	if err := o.pod.take(flags); err != nil {
		return err
	}
	return o.container.take(args)
}

func (o *podOptions) take(flags *pflag.FlagSet) error {
	userns, err := flags.GetBool("userns")
	if err != nil {
		return err
	}
	switch {
	case flags.Changed("host-users") && flags.Changed("userns") && o.hostUsers == userns:
		return misuse("run: --host-users=%t and --userns=%t contradict each other", o.hostUsers, userns)
	case flags.Changed("userns"):
		o.hostUsers = !userns
	}
	if _, err := parseRange(o.usernsRange); err != nil {
		return misuse("run: --userns-range: %v", err)
	}
	if !flags.Changed("name") {
		o.name = "pod-" + strings.ToLower(rand.Text()[:8])
	}
	// The name is also used for a directory.
	if o.name == "" || o.name == "." || o.name == ".." || strings.ContainsAny(o.name, "/\x00") || checkText(o.name) != nil {
		return misuse("run: --name %q cannot be the name of a directory", o.name)
	}
	if o.hostNetwork && len(o.ports.list) > 0 {
		return misuse("run: --publish cannot be used with --host-network, where every port is the node's")
	}
	return nil
}

func (o *containerOptions) take(args []string) error {
	o.image, o.command = args[0], args[1:]
	for _, arg := range append([]string{o.entrypoint.program, o.workDir}, args...) {
		if err := checkText(arg); err != nil {
			return misuse("run: %q: %v", arg, err)
		}
	}
	if o.image == "" {
		return misuse("run: name one image")
	}
	if o.workDir != "" && !strings.HasPrefix(o.workDir, "/") {
		return misuse("run: --workdir %q is not an absolute path", o.workDir)
	}
	if o.entrypoint.given && o.entrypoint.program == "" && len(o.command) == 0 {
		return misuse("run: an empty --entrypoint needs a command after --")
	}
	return nil
}

// cleanTimeout limits the removal of the pod at the end.
const cleanTimeout = 2 * time.Minute
