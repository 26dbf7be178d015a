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

	pinfoldv1 "github.com/pinfold-run/pinfold/api/pinfold/v1"
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
	loaded, err := n.load(ctx, archive)
	if err != nil {
		return err
	}
	for _, img := range loaded {
		fmt.Fprintln(t.out, img.GetId(), visible(strings.Join(img.GetTags(), " ")))
	}
	return nil
}

// chunkSize is how much of an archive one message carries, in bytes.
const chunkSize = 256 << 10

// load sends an archive to the daemon and returns the images in it.
func (n *node) load(ctx context.Context, archive io.Reader) ([]*pinfoldv1.LoadedImage, error) {
	ctx, cancel := context.WithCancel(ctx) // ends the call if the archive cannot be read
	defer cancel()
	stream, err := n.own.LoadImage(ctx)
	if err != nil {
		return nil, err
	}
	buffer := make([]byte, chunkSize)
	for {
		size, err := archive.Read(buffer)
		if size > 0 {
			// io.EOF here means that the daemon has answered early; its answer says why.
			if err := stream.Send(&pinfoldv1.LoadImageRequest{Chunk: buffer[:size]}); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return nil, err
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	answer, err := stream.CloseAndRecv()
	return answer.GetImages(), err
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
	return t.eachImage("pin", args, func(n *node, name string) error {
		_, err := n.own.PinImage(ctx, &pinfoldv1.PinImageRequest{Image: name})
		return err
	})
}

func imageUnpin(ctx context.Context, t *tool, args []string) error {
	return t.eachImage("unpin", args, func(n *node, name string) error {
		_, err := n.own.UnpinImage(ctx, &pinfoldv1.UnpinImageRequest{Image: name})
		return err
	})
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
