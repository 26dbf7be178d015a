package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pinfold-run/pinfold/internal/config"
	"github.com/pinfold-run/pinfold/internal/daemon"
)

func newConfigCommand(flags *config.Flags) *cobra.Command {
	c := &cobra.Command{
		Use: "config", Short: "Show or check the configuration", Args: noArguments,
		RunE: func(*cobra.Command, []string) error { return usageError{errors.New("config needs show or check")} },
	}
	c.AddCommand(newShowCommand(flags), newCheckCommand(flags))
	return c
}

func newShowCommand(flags *config.Flags) *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Print the configuration that the files and flags make", Args: noArguments,
		Long: "Prints every key with its value, as a configuration file that means the same. A comment says where each value\n" +
			"comes from: a flag, a place in a file, or the default.",
		RunE: func(c *cobra.Command, _ []string) error {
			e, err := flags.Load()
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(c.OutOrStdout(), e.TOML())
			return err
		},
	}
}

func newCheckCommand(flags *config.Flags) *cobra.Command {
	strict := false
	c := &cobra.Command{
		Use: "check", Short: "Check the configuration and what it names", Args: noArguments,
		Long: "Reads the files and flags, and looks at what they name: directories, runtimes, pinder, network configurations and\n" +
			"plugins, hosts.toml files. It changes nothing, and needs no daemon. What keeps pinfoldd from starting is an error, and the\n" +
			"exit code is 1. What may come later, such as a network configuration, is a warning.",
		RunE: func(c *cobra.Command, _ []string) error {
			e, err := flags.Load()
			if err != nil {
				return err
			}
			faults, warnings := daemon.Precheck(e.Config)
			for _, w := range warnings {
				fmt.Fprintf(c.ErrOrStderr(), "pinfoldd: warning: %v\n", w)
			}
			for _, f := range faults {
				fmt.Fprintf(c.ErrOrStderr(), "pinfoldd: %v\n", f)
			}
			if len(faults) > 0 || strict && len(warnings) > 0 {
				return errLogged
			}
			return nil
		},
	}
	c.Flags().BoolVar(&strict, "strict", false, "warnings are errors, too")
	return c
}
