package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func imagePullCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use:   "pull IMAGE",
		Short: "Pull an image from its registry",
		Long: `Pull an image from its registry, with the mirrors, certificates and headers that hosts.toml files
configure for it. It prints the image's reference.`,
		Example: `  pinfold image pull docker.io/library/busybox:latest`,
		Args:    wants(1, 1, "one image"),
		RunE:    t.does(func(ctx context.Context, t *tool, args []string) error { return imagePull(ctx, t, args[0]) }),
	}
}

func imagePull(ctx context.Context, t *tool, name string) error {
	n, err := t.connect(ctx)
	if err != nil {
		return err
	}
	defer n.close()
	resp, err := n.images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: name}})
	if err != nil {
		return err
	}
	fmt.Fprintln(t.out, resp.ImageRef)
	return nil
}
