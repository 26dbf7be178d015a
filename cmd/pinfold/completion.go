package main

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// addCompletion adds the command that prints completions for shells.
func addCompletion(root *cobra.Command) {
	root.CompletionOptions.DisableDefaultCmd = true
	group := &cobra.Command{
		Use:   "completion COMMAND",
		Short: "Print the completion script of a shell",
		Long: `Print the completion script of a shell. It needs no daemon. Completed are commands, flags, and,
while a daemon answers, names of pods and images.`,
		Args: cobra.ArbitraryArgs,
		RunE: wantsCommand,
	}
	add := func(shell, load string, write func(io.Writer) error) {
		group.AddCommand(&cobra.Command{
			Use:     shell,
			Short:   "Print the completion script of " + shell,
			Long:    "Print the completion script of " + shell + ". It needs no daemon.",
			Example: load,
			Args:    wantsNothing,
			RunE:    func(cmd *cobra.Command, _ []string) error { return write(cmd.OutOrStdout()) },
		})
	}
	add("bash", "  source <(pinfold completion bash)\n  pinfold completion bash > /etc/bash_completion.d/pinfold",
		func(w io.Writer) error { return root.GenBashCompletionV2(w, true) })
	add("zsh", `  pinfold completion zsh > "${fpath[1]}/_pinfold"`, root.GenZshCompletion)
	add("fish", "  pinfold completion fish > ~/.config/fish/completions/pinfold.fish",
		func(w io.Writer) error { return root.GenFishCompletion(w, true) })
	root.AddCommand(group)
}

// completionTimeout is how long a completion waits for the daemon.
const completionTimeout = time.Second

// completer completes arguments with names that it asks the daemon for. Without a daemon it
// completes nothing, and says nothing.
func (t *tool) completer(most int, names func(context.Context, *node) ([]string, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if most >= 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		n, err := t.connect(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer n.close()
		list, err := names(ctx, n)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return list, cobra.ShellCompDirectiveNoFileComp
	}
}

func podNames(ctx context.Context, n *node) ([]string, error) {
	list, err := n.runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, pod := range list.Items {
		names = append(names, completion(pod.GetMetadata().GetName(), pod.GetMetadata().GetNamespace()+" "+shortID(pod.Id)))
	}
	return names, nil
}

func imageNames(ctx context.Context, n *node) ([]string, error) {
	list, err := n.images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, image := range list.Images {
		for _, tag := range image.RepoTags {
			names = append(names, completion(tag, shortID(image.Id)))
		}
	}
	return names, nil
}

// completion is a word with its description. Both are made safe for the shell's terminal.
func completion(word, description string) string { return visible(word) + "\t" + visible(description) }
