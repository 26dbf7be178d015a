package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// usageError is an error in how the command was called.
type usageError struct {
	text string
	// command is the command whose help to read; empty if not known.
	command string
}

// Error implements error.
func (u usageError) Error() string { return u.text }

// misuse returns an error of usage.
func misuse(format string, args ...any) error {
	return usageError{text: fmt.Sprintf(format, args...)}
}

// wants checks the number of arguments; most is -1 for any number. what says in words what the
// command wants, such as "one pod".
func wants(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= least && (most < 0 || len(args) <= most) {
			return nil
		}
		got := "got none"
		if len(args) > 0 {
			got = fmt.Sprintf("got %d: %s", len(args), strings.Join(args, " "))
		}
		return usageError{fmt.Sprintf("%s: name %s (%s)", nameOf(cmd), what, got), cmd.CommandPath()}
	}
}

// wantsNothing refuses every argument.
func wantsNothing(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usageError{fmt.Sprintf("%s takes no arguments (got %s)", nameOf(cmd), strings.Join(args, " ")), cmd.CommandPath()}
}

// nameOf is the name of a command without that of the program.
func nameOf(cmd *cobra.Command) string {
	_, name, ok := strings.Cut(cmd.CommandPath(), " ")
	if !ok {
		return cmd.Name()
	}
	return name
}

// wantsCommand is what a group of commands does: it needs one of them.
func wantsCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		cmd.SetOut(cmd.ErrOrStderr())
		_ = cmd.Help()
		text := "name a command"
		if cmd.HasParent() {
			text = nameOf(cmd) + ": " + text
		}
		return usageError{text, cmd.CommandPath()}
	}
	return unknownCommand(cmd, args[0])
}

func unknownCommand(group *cobra.Command, word string) error {
	text := fmt.Sprintf("there is no command %q", group.CommandPath()+" "+word)
	if similar := similarCommand(group, word); similar != "" {
		text += "; did you mean " + group.CommandPath() + " " + similar
	}
	return usageError{text, group.CommandPath()}
}

// flagError is the error for a flag that does not exist or has a bad value.
func flagError(cmd *cobra.Command, err error) error {
	text := err.Error()
	if word, ok := strings.CutPrefix(text, "unknown flag: --"); ok {
		text = fmt.Sprintf("%s has no flag --%s", cmd.CommandPath(), word)
		if s := similarFlag(cmd, word); s != "" {
			text += "; did you mean --" + s
		}
	}
	if strings.Contains(cmd.Use, "-- COMMAND") && (strings.Contains(text, "no flag") || strings.Contains(text, "shorthand") || strings.Contains(text, " in -")) {
		text += " (flags of the container's command come after --)"
	}
	return usageError{text, cmd.CommandPath()}
}
