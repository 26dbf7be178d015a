package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pinfold-run/pinfold/internal/config"
)

// usageError is an error of the command line itself.
type usageError struct{ error }

// newCommand makes the command line.
func newCommand(p *process) *cobra.Command {
	root := &cobra.Command{
		Use:   "pinfoldd [flags]",
		Short: "Container runtime for Kubernetes nodes (CRI)",
		Long: "pinfoldd serves the Kubernetes Container Runtime Interface (CRI v1) on a Unix socket. It runs in the\n" +
			"foreground and logs to standard error. Its pods keep running when it ends.",
		Args:          noArguments,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	flags := config.Register(root.PersistentFlags())
	complete(root)
	root.RunE = func(*cobra.Command, []string) error { return p.serve(flags) }
	root.AddCommand(newConfigCommand(flags), newVersionCommand())
	return root
}

// complete lets shells complete the values of flags that are words. Those of the others are files,
// which shells complete by themselves.
func complete(root *cobra.Command) {
	for flag, words := range map[string][]string{
		"cgroup-driver": {config.Auto, config.Systemd, config.Cgroupfs},
		"log-level":     {"DEBUG", "INFO", "WARN", "ERROR"},
		"log-format":    {config.Text, config.JSON},
	} {
		_ = root.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)) // fails for an unknown flag; tested
	}
}

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArguments,
		Run: func(c *cobra.Command, _ []string) { fmt.Fprintln(c.OutOrStdout(), version) },
	}
}

func noArguments(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unexpected argument %q", args[0])}
	}
	return nil
}

// singleDashes lets flags have one dash, too, as they had when package flag read them.
func singleDashes(root *cobra.Command, args []string) []string {
	root.InitDefaultHelpFlag()
	root.InitDefaultVersionFlag()
	all := root.Flags()
	all.AddFlagSet(root.PersistentFlags())
	return config.DoubleDashes(all, args)
}
