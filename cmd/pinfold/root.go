package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const rootLong = `pinfold runs pods on this node without Kubernetes, shows the pods, containers and images that
are there (also those of a kubelet), and says what the daemon pinfoldd does and finds.

It reaches the daemon through its Unix socket. The socket is, in this order:
  1. the value of --socket
  2. the value of $PINFOLD_SOCKET
  3. the value of $CONTAINER_RUNTIME_ENDPOINT
  4. ` + defaultSocket + `, if it exists
  5. runtime-endpoint of ` + crictlFile + `, if that is a regular file and names a Unix socket
Each may be a path or a URL unix:///path. Another runtime's socket is refused in words.

Exit codes: 0 success; 1 failure; 64 wrong usage; 128+N ended by signal N before a container
ran. run, exec and logs --follow pass on the exit code of the container. check, doctor and status have
codes of their own; see their help.

What of the output scripts may rely on: the exit codes, the keys and values of --output json and
yaml (those of CRI; new keys may come), and the lines of --quiet. Tables and messages are for people.`

// newRoot makes the tree of commands.
func newRoot(t *tool) *cobra.Command {
	root := &cobra.Command{
		Use:               "pinfold [--socket PATH] COMMAND ...",
		Short:             "Run and examine pods, containers and images of this node",
		Long:              rootLong,
		Example:           rootExample,
		Version:           version,
		Args:              cobra.ArbitraryArgs, // so that wantsCommand names the unknown word
		RunE:              wantsCommand,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
	}
	root.SetIn(t.in)
	root.SetOut(t.out)
	root.SetErr(t.errs)
	root.SetFlagErrorFunc(flagError)
	root.SetVersionTemplate("pinfold {{.Version}}\n")
	flags := root.PersistentFlags()
	flags.StringVar(&t.socket, "socket", "", "the daemon's Unix socket, a `path` or unix:// URL (default: see pinfold help)")
	flags.DurationVar(&t.timeout, "timeout", 10*time.Second, "how long to wait for the daemon's answer to a question; operations, such as to pull or to stop, take what they take (0: no limit)")
	root.Flags().Bool("version", false, "print the version of this command and exit")
	root.AddGroup(
		&cobra.Group{ID: groupPods, Title: "Pods and containers:"},
		&cobra.Group{ID: groupImages, Title: "Images:"},
		&cobra.Group{ID: groupNode, Title: "The node:"},
	)
	addTo(root, groupPods, runCommand(t), psCommand(t), execCommand(t), attachCommand(t), logsCommand(t), inspectCommand(t), stopCommand(t), rmCommand(t))
	addTo(root, groupImages, imageCommand(t))
	addTo(root, groupNode, statusCommand(t), checkCommand(t), whyCommand(t), doctorCommand(t), migrateCommand(t), versionCommand(t))
	root.SetHelpCommand(helpCommand())
	root.InitDefaultHelpCmd()
	addCompletion(root)
	// The use line of a group says COMMAND already.
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(), "{{if .HasAvailableSubCommands}}\n  {{.CommandPath}} [command]{{end}}", "", 1))
	finish(root)
	return root
}

// The groups of commands in the help.
const (
	groupPods   = "pods"
	groupImages = "images"
	groupNode   = "node"
)

const rootExample = `  pinfold run docker.io/library/busybox:latest -- id
  pinfold ps
  pinfold logs --follow my-pod
  pinfold status --output json`

func addTo(root *cobra.Command, group string, commands ...*cobra.Command) {
	for _, c := range commands {
		c.GroupID = group
		root.AddCommand(c)
	}
}

// finish sets what is the same for all commands.
func finish(cmd *cobra.Command) {
	cmd.DisableFlagsInUseLine = true
	cmd.Flags().SortFlags = false
	cmd.InitDefaultHelpFlag()
	if h := cmd.Flags().Lookup("help"); h != nil {
		h.Usage = fmt.Sprintf("print this help of %s", cmd.Name())
	}
	if cmd.Args == nil {
		cmd.Args = cobra.ArbitraryArgs
	}
	for _, c := range cmd.Commands() {
		finish(c)
	}
}
