package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func imageListCommand(t *tool) *cobra.Command {
	var o output
	cmd := &cobra.Command{
		Use:     "list [--output FORMAT | --quiet]",
		Aliases: []string{"ls"},
		Short:   "List the images of this node",
		Long: `List the images of this node, with their names, digests and sizes. SIZE is what the image takes on
this node, unpacked. PINNED images are kept from the kubelet's garbage collection. DIGEST is that
of the manifest, by which a registry knows the image; an image from an archive may have none. JSON and
YAML have CRI's ListImagesResponse.`,
		Example: `  pinfold image list
  pinfold image list --no-trunc
  pinfold image list -o json | jq -r '.images[] | select(.pinned) | .repoTags[]'`,
		Args: wantsNothing,
		RunE: t.does(func(ctx context.Context, t *tool, _ []string) error { return imageList(ctx, t, &o) }),
	}
	o.addList(cmd)
	return cmd
}

func imageList(ctx context.Context, t *tool, o *output) error {
	if err := o.check(); err != nil {
		return err
	}
	n, err := t.connect(ctx)
	if err != nil {
		return err
	}
	defer n.close()
	list, err := n.images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return err
	}
	if o.quiet {
		for _, img := range list.Images {
			fmt.Fprintln(t.out, visible(img.Id))
		}
		return nil
	}
	return printImages(t, o, list)
}

func printImages(t *tool, o *output, list *runtimeapi.ListImagesResponse) error {
	return o.print(t, list, func(w io.Writer) error {
		return columns(w, func(w io.Writer) {
			fmt.Fprintln(w, "IMAGE ID\tSIZE\tPINNED\tDIGEST\tNAMES")
			for _, img := range list.Images {
				pinned := "-"
				if img.Pinned {
					pinned = "yes"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", o.id(img.Id), sizeText(img.Size), pinned, o.digests(img), orDash(visible(strings.Join(img.RepoTags, " "))))
			}
		})
	})
}

// digests are the digests of an image's manifests, each once.
func (o *output) digests(img *runtimeapi.Image) string {
	var list []string
	seen := map[string]bool{}
	for _, name := range img.RepoDigests {
		_, digest, _ := strings.Cut(name, "@")
		if digest != "" && !seen[digest] {
			seen[digest] = true
			list = append(list, o.id(digest))
		}
	}
	return orDash(strings.Join(list, ","))
}
