package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/admin"
)

func imageLoad(ctx context.Context, t *tool, args []string) error {
	if len(args) != 1 {
		return errors.New("image load: name one archive, or - for standard input")
	}
	var archive io.Reader = os.Stdin
	if args[0] != "-" {
		f, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer f.Close()
		archive = f
	}
	n, err := t.connect()
	if err != nil {
		return err
	}
	defer n.close()
	loaded, err := admin.LoadImage(ctx, n.conn, archive)
	if err != nil {
		return err
	}
	for _, img := range loaded {
		fmt.Fprintln(t.out, img.ID, visible(strings.Join(img.Tags, " ")))
	}
	return nil
}

func imagePull(ctx context.Context, t *tool, args []string) error {
	if len(args) != 1 {
		return errors.New("image pull: name one image")
	}
	n, err := t.connect()
	if err != nil {
		return err
	}
	defer n.close()
	resp, err := n.images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: args[0]}})
	if err != nil {
		return err
	}
	fmt.Fprintln(t.out, resp.ImageRef)
	return nil
}

func imageList(ctx context.Context, t *tool, _ []string) error {
	n, err := t.connect()
	if err != nil {
		return err
	}
	defer n.close()
	list, err := n.images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "IMAGE ID\tSIZE\tNAMES")
	for _, img := range list.Images {
		_, id, _ := strings.Cut(img.Id, ":")
		fmt.Fprintf(w, "%s\t%.1f MB\t%s\n", id[:12], float64(img.Size)/1e6, orDash(visible(strings.Join(img.RepoTags, " "))))
	}
	return w.Flush()
}

func imageRemove(ctx context.Context, t *tool, args []string) error {
	return t.eachImage("rm", args, func(n *node, name string) error {
		_, err := n.images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: name}})
		return err
	})
}

func imagePin(ctx context.Context, t *tool, args []string) error {
	return t.eachImage("pin", args, func(n *node, name string) error { return admin.PinImage(ctx, n.conn, name, true) })
}

func imageUnpin(ctx context.Context, t *tool, args []string) error {
	return t.eachImage("unpin", args, func(n *node, name string) error { return admin.PinImage(ctx, n.conn, name, false) })
}

// eachImage calls do for each image, also after an error.
func (t *tool) eachImage(verb string, names []string, do func(n *node, name string) error) error {
	if len(names) == 0 {
		return fmt.Errorf("image %s: name at least one image", verb)
	}
	n, err := t.connect()
	if err != nil {
		return err
	}
	defer n.close()
	var failed []error
	for _, name := range names {
		failed = append(failed, do(n, name))
	}
	return errors.Join(failed...)
}
