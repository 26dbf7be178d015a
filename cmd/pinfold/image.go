package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

func imageCommand(t *tool) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "image COMMAND",
		Aliases: []string{"images"},
		Short:   "Pull, load, list, pin and remove images",
		Long: `Pull, load, list, pin and remove the images of this node. IMAGE is a name as in a pod's
specification (busybox stands for docker.io/library/busybox:latest), a name with a digest, or an ID.`,
		Example: `  pinfold image pull docker.io/library/busybox:latest
  pinfold image list`,
		Args: cobra.ArbitraryArgs,
		RunE: wantsCommand,
	}
	cmd.AddCommand(imagePullCommand(t), imageLoadCommand(t), imageListCommand(t), imageRmCommand(t), imagePinCommand(t), imageUnpinCommand(t))
	return cmd
}

// eachImage calls do for each image, also after an error.
func (t *tool) eachImage(ctx context.Context, names []string, do func(n *node, name string) error) error {
	n, err := t.connect(ctx)
	if err != nil {
		return err
	}
	defer n.close()
	var failed []error
	for _, name := range names {
		err := do(n, name)
		if err != nil && len(names) > 1 {
			err = fmt.Errorf("%s: %w", visible(name), err)
		}
		failed = append(failed, err)
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(failed...)
}

// sizeText is a number of bytes with a decimal unit, as registries and other runtimes print sizes.
func sizeText(bytes uint64) string {
	units := []string{"kB", "MB", "GB", "TB", "PB", "EB"}
	if bytes < 1000 {
		return fmt.Sprintf("%d B", bytes)
	}
	value, unit := float64(bytes)/1000, 0
	for value >= 999.95 && unit < len(units)-1 {
		value /= 1000
		unit++
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}
