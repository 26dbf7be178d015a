package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// helpCommand prints the help of any command. Cobra's own ends with success for a word that is no
// command.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]...",
		Short: "Print the help of a command",
		Long:  "Print the help of a command, or the list of commands. It needs no daemon.",
		Example: `  pinfold help
  pinfold help image pull`,
		ValidArgsFunction: completeHelp,
		RunE: func(cmd *cobra.Command, words []string) error {
			about := cmd.Root()
			for _, word := range words {
				next := childOf(about, word)
				if next == nil {
					return unknownCommand(about, word)
				}
				about = next
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}

func childOf(group *cobra.Command, word string) *cobra.Command {
	for _, c := range group.Commands() {
		if c.Name() == word || c.HasAlias(word) {
			return c
		}
	}
	return nil
}

func completeHelp(cmd *cobra.Command, words []string, _ string) ([]string, cobra.ShellCompDirective) {
	about := cmd.Root()
	for _, word := range words {
		if about = childOf(about, word); about == nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
	}
	var names []string
	for _, c := range about.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name()+"\t"+c.Short)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// similarFlag finds a flag of the command that is written nearly like word.
func similarFlag(cmd *cobra.Command, word string) string {
	best, distance := "", 3
	look := func(f *pflag.Flag) {
		if d := editDistance(word, f.Name); d < distance && !f.Hidden {
			best, distance = f.Name, d
		}
	}
	cmd.Flags().VisitAll(look)
	cmd.InheritedFlags().VisitAll(look)
	return best
}

// similarCommand finds the command of a group that is written nearly like word, or begins with it.
func similarCommand(group *cobra.Command, word string) string {
	best, distance := "", 3
	for _, c := range group.Commands() {
		d := editDistance(word, c.Name())
		if strings.HasPrefix(c.Name(), word) {
			d = min(d, 1)
		}
		if d < distance && c.IsAvailableCommand() {
			best, distance = c.Name(), d
		}
	}
	return best
}

// editDistance counts the insertions, deletions and changes of letters between two words. Long
// words are not compared.
func editDistance(a, b string) int {
	if len(a) > 40 || len(b) > 40 {
		return 40
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
