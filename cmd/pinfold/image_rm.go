package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	pinfoldv1 "github.com/pinfold-run/pinfold/api/pinfold/v1"
)

func imageRmCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use:     "rm IMAGE...",
		Aliases: []string{"remove"},
		Short:   "Remove images",
		Long: `Remove images. All names of an image go with it. Containers that were made from it go on: their
layers stay as long as they need them. A pinned image is removed all the same. An image that is not
on the node is an error.`,
		Example:           `  pinfold image rm docker.io/library/busybox:latest`,
		Args:              wants(1, -1, "at least one image"),
		ValidArgsFunction: t.completer(-1, imageNames),
		RunE: t.does(func(ctx context.Context, t *tool, args []string) error {
			return t.eachImage(ctx, args, func(n *node, name string) error {
				spec := &runtimeapi.ImageSpec{Image: name}
				// CRI's removal of what is not there succeeds.
				found, err := n.images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: spec})
				if err == nil && found.Image == nil {
					err = errors.New("there is no such image (pinfold image list lists all)")
				}
				if err != nil {
					return err
				}
				_, err = n.images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: spec})
				return err
			})
		}),
	}
}

func imagePinCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use:               "pin IMAGE...",
		Short:             "Keep images from the kubelet's garbage collection",
		Long:              `Keep images from the kubelet's garbage collection. "pinfold image rm" removes them all the same.`,
		Example:           `  pinfold image pin registry.example/base:1`,
		Args:              wants(1, -1, "at least one image"),
		ValidArgsFunction: t.completer(-1, imageNames),
		RunE: t.does(func(ctx context.Context, t *tool, args []string) error {
			return t.eachImage(ctx, args, func(n *node, name string) error {
				_, err := n.own.PinImage(ctx, &pinfoldv1.PinImageRequest{Image: name})
				return err
			})
		}),
	}
}

func imageUnpinCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use:               "unpin IMAGE...",
		Short:             "Let the kubelet collect images again",
		Long:              `Let the kubelet's garbage collection remove images again.`,
		Example:           `  pinfold image unpin registry.example/base:1`,
		Args:              wants(1, -1, "at least one image"),
		ValidArgsFunction: t.completer(-1, imageNames),
		RunE: t.does(func(ctx context.Context, t *tool, args []string) error {
			return t.eachImage(ctx, args, func(n *node, name string) error {
				_, err := n.own.UnpinImage(ctx, &pinfoldv1.UnpinImageRequest{Image: name})
				return err
			})
		}),
	}
}
