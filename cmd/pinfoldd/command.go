package main

import (
	"errors"
	"fmt"
	"strings"

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
	root.SetHelpCommand(newHelpCommand())
	root.InitDefaultCompletionCmd()
	strictCompletion(root)
	return root
}

// newHelpCommand prints the help of a command. Cobra's own ends with success for a word that names no command.
func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [command]", Short: "Print the help of a command",
		RunE: func(c *cobra.Command, words []string) error {
			about, rest, err := c.Root().Find(words)
			if err != nil || len(rest) > 0 {
				return usageError{fmt.Errorf("there is no command %q", strings.Join(words, " "))}
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}

// strictCompletion lets cobra's command completion have only the shells that the manual names, and take no
// other words: it would print its help for them and end with success.
func strictCompletion(root *cobra.Command) {
	group, _, err := root.Find([]string{"completion"})
	if err != nil || group == root {
		return
	}
	group.Short, group.Args = "Print the completion script of a shell", noArguments
	group.RunE = func(*cobra.Command, []string) error {
		return usageError{errors.New("completion needs bash, zsh or fish")}
	}
	for _, shell := range group.Commands() {
		shell.Args = noArguments
		if shell.Name() == "powershell" {
			group.RemoveCommand(shell)
		}
	}
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
