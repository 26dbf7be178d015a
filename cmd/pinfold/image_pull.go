package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pullOptions are the flags of pinfold image pull.
type pullOptions struct {
	creds    string
	authFile string
	quiet    bool
}

func imagePullCommand(t *tool) *cobra.Command {
	var o pullOptions
	cmd := &cobra.Command{
		Use:   "pull [--creds USER] [--authfile FILE] [--quiet] IMAGE",
		Short: "Pull an image from its registry",
		Long: `Pull an image from its registry, with the mirrors, certificates and headers that hosts.toml files
configure for it. It prints the image's ID. Standard error shows how far the pull is: bytes, unpacked
layers and the rate; a line every few seconds if it is no terminal.

Credentials are those of --creds. Without it, they are looked for in the file of --authfile or
$REGISTRY_AUTH_FILE, which has the form of Docker's config.json; helpers that such a file names
are not called. Credentials are sent to the image's own registry and to no mirror (hosts.toml has headers
for those), for this pull alone. If the command is interrupted, the
daemon ends the pull, unless another request waits for it. What has arrived is kept for the next.`,
		Example: `  pinfold image pull docker.io/library/busybox:latest
  pinfold image pull --creds robot registry.example/app:1        # asks for the password
  pinfold image pull --creds robot registry.example/app:1 < token`,
		Args: wants(1, 1, "one image"),
		RunE: t.does(func(ctx context.Context, t *tool, args []string) error { return imagePull(ctx, t, &o, args[0]) }),
	}
	cmd.Flags().StringVar(&o.creds, "creds", "", "`USER[:PASSWORD]` for the registry; without a password it is asked for, or read from standard input (others on the node can see arguments, so better without)")
	cmd.Flags().StringVar(&o.authFile, "authfile", "", "`file` with credentials of registries, as Docker's config.json (default: $REGISTRY_AUTH_FILE)")
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "show no progress")
	return cmd
}

func imagePull(ctx context.Context, t *tool, o *pullOptions, name string) error {
	auth, err := t.credentials(ctx, o, name)
	if err != nil {
		return err
	}
	n, err := t.connect(ctx)
	if err != nil {
		return err
	}
	defer n.close()
	ref, err := n.pull(ctx, t, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: name}, Auth: auth}, o.quiet)
	if err != nil {
		return err
	}
	fmt.Fprintln(t.out, visible(ref))
	return nil
}

// pull pulls an image and shows the progress.
func (n *node) pull(ctx context.Context, t *tool, req *runtimeapi.PullImageRequest, quiet bool) (string, error) {
	if !quiet {
		watching, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			n.showPull(watching, t, req.GetImage().GetImage())
		}()
		defer func() { stop(); <-done }()
	}
	resp, err := n.images.PullImage(ctx, req)
	return resp.GetImageRef(), err
}

// ensureImage pulls an image if it is not on the node, or always.
func (n *node) ensureImage(ctx context.Context, t *tool, name string, always bool) error {
	spec := &runtimeapi.ImageSpec{Image: name}
	if !always {
		found, err := n.images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: spec})
		if err != nil || found.Image != nil {
			return err
		}
	}
	auth, err := t.credentials(ctx, &pullOptions{}, name)
	if err != nil {
		return err
	}
	_, err = n.pull(ctx, t, &runtimeapi.PullImageRequest{Image: spec, Auth: auth}, !t.isTerminal(t.errs))
	return err
}
