package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	pinfoldv1 "github.com/pinfold-run/pinfold/api/pinfold/v1"
)

func imageLoadCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use:   "load FILE|-",
		Short: "Load images from an archive",
		Long: `Load the images of an archive in the form of an OCI layout (oci-archive) or of "docker save", compressed
or not; - reads standard input. It prints the ID and the names of each image.`,
		Example: `  pinfold image load images.tar
  zstdcat images.tar.zst | pinfold image load -`,
		Args: wants(1, 1, "one archive, or - for standard input"),
		RunE: t.does(func(ctx context.Context, t *tool, args []string) error { return imageLoad(ctx, t, args[0]) }),
	}
}

func imageLoad(ctx context.Context, t *tool, file string) error {
	archive := t.in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		archive = f
	}
	n, err := t.connect(ctx)
	if err != nil {
		return err
	}
	defer n.close()
	loaded, err := n.load(ctx, archive)
	if err != nil {
		return err
	}
	for _, img := range loaded {
		fmt.Fprintln(t.out, visible(img.GetId()), visible(strings.Join(img.GetTags(), " ")))
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
