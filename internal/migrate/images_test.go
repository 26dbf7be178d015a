package migrate

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// containerd has images and blobs in memory. It stands in for containerd to make faults that the real one has seldom.
type containerd struct {
	images []*imagesapi.Image
	blobs  map[string][]byte
	// short cuts this blob's last byte off.
	short string
}

// imagesOf and contentOf serve its two parts.
type imagesOf struct {
	imagesapi.UnimplementedImagesServer
	*containerd
}

type contentOf struct {
	contentapi.UnimplementedContentServer
	*containerd
}

func inK8s(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if !slices.Equal(md.Get("containerd-namespace"), []string{"k8s.io"}) {
		return status.Error(codes.InvalidArgument, "another namespace")
	}
	return nil
}

func (c imagesOf) List(ctx context.Context, _ *imagesapi.ListImagesRequest) (*imagesapi.ListImagesResponse, error) {
	return &imagesapi.ListImagesResponse{Images: c.images}, inK8s(ctx)
}

func (c contentOf) Info(ctx context.Context, r *contentapi.InfoRequest) (*contentapi.InfoResponse, error) {
	data, ok := c.blobs[r.GetDigest()]
	if !ok {
		return nil, status.Error(codes.NotFound, "no such blob")
	}
	return &contentapi.InfoResponse{Info: &contentapi.Info{Digest: r.GetDigest(), Size: int64(len(data))}}, inK8s(ctx)
}

func (c contentOf) Read(r *contentapi.ReadContentRequest, s contentapi.Content_ReadServer) error {
	data := c.blobs[r.GetDigest()]
	if r.GetDigest() == c.short {
		data = data[:len(data)-1]
	}
	for part := range slices.Chunk(data, 7) {
		if err := s.Send(&contentapi.ReadContentResponse{Data: part}); err != nil {
			return err
		}
	}
	return nil
}

func (c *containerd) put(mediaType string, data []byte) ocispec.Descriptor {
	d := digest.FromBytes(data)
	c.blobs[d.String()] = data
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

func (c *containerd) document(t *testing.T, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return c.put(mediaType, data)
}

func (c *containerd) manifest(t *testing.T, layer string) ocispec.Descriptor {
	t.Helper()
	return c.document(t, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Config: c.put(ocispec.MediaTypeImageConfig, []byte(`{"of":"`+layer+`"}`)),
		Layers: []ocispec.Descriptor{c.put(ocispec.MediaTypeImageLayer, []byte(layer))},
	})
}

func (c *containerd) name(target ocispec.Descriptor, names ...string) {
	for _, name := range names {
		c.images = append(c.images, &imagesapi.Image{
			Name: name, Target: &types.Descriptor{MediaType: target.MediaType, Digest: target.Digest.String(), Size: target.Size},
		})
	}
}

// store serves it on a socket of the test.
func (c *containerd) store(t *testing.T) *Store {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	imagesapi.RegisterImagesServer(server, imagesOf{containerd: c})
	contentapi.RegisterContentServer(server, contentOf{containerd: c})
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return NewStore(conn)
}

// files are those of an archive.
func files(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	all := map[string]string{}
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		all[h.Name] = string(data)
	}
}

func TestAnImageKeepsItsNamesItsDigestAndTheBytesOfThePlatformsThatAreThere(t *testing.T) {
	c := &containerd{blobs: map[string][]byte{}}
	here, elsewhere := c.manifest(t, "here"), c.manifest(t, "elsewhere")
	delete(c.blobs, digest.FromString("elsewhere").String())
	index := c.document(t, ocispec.MediaTypeImageIndex, ocispec.Index{Manifests: []ocispec.Descriptor{here, elsewhere}})
	byDigest := "registry.example/app@" + index.Digest.String()
	c.name(index, "sha256:4f1c", byDigest, "registry.example/app:1")
	s := c.store(t)
	all, err := s.Images(t.Context())
	if err != nil || len(all) != 1 || !slices.Equal(all[0].Names, []string{"registry.example/app:1", byDigest}) || all[0].String() != "registry.example/app:1" {
		t.Fatalf("got %+v, %v", all, err)
	}
	var archive bytes.Buffer
	if err := s.Export(t.Context(), &archive, all[0]); err != nil {
		t.Fatal(err)
	}
	got := files(t, archive.Bytes())
	blobs := 0
	for name, data := range got {
		if d, ok := strings.CutPrefix(name, "blobs/sha256/"); ok {
			blobs++
			if digest.FromString(data).Encoded() != d {
				t.Errorf("%s has other bytes", name)
			}
		}
	}
	if blobs != 4 { // index, manifest, configuration, layer
		t.Errorf("%d blobs: %v", blobs, got)
	}
	for _, part := range []string{index.Digest.String(), `"io.containerd.image.name":"registry.example/app:1"`, byDigest} {
		if !strings.Contains(got["index.json"], part) {
			t.Errorf("index.json does not have %s: %s", part, got["index.json"])
		}
	}
	if !strings.Contains(got["oci-layout"], "1.0.0") {
		t.Errorf("oci-layout is %q", got["oci-layout"])
	}
}

func TestAnImageThatIsNotWholeOrNotWhatItSaysIsAnError(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*testing.T, *containerd, ocispec.Descriptor) ocispec.Descriptor
		says  string
	}{
		"containerd has removed the layer": {func(_ *testing.T, c *containerd, top ocispec.Descriptor) ocispec.Descriptor {
			delete(c.blobs, digest.FromString("layer").String())
			return top
		}, ErrIncomplete.Error()},
		"the manifest is not there": {func(_ *testing.T, c *containerd, top ocispec.Descriptor) ocispec.Descriptor {
			delete(c.blobs, top.Digest.String())
			return top
		}, ErrIncomplete.Error()},
		"the layer is cut off": {func(_ *testing.T, c *containerd, top ocispec.Descriptor) ocispec.Descriptor {
			c.short = digest.FromString("layer").String()
			return top
		}, "4 bytes instead of 5"},
		"the manifest is not JSON": {func(_ *testing.T, c *containerd, _ ocispec.Descriptor) ocispec.Descriptor {
			return c.put(ocispec.MediaTypeImageManifest, []byte("{"))
		}, "unexpected end"},
		"an index of nothing": {func(t *testing.T, c *containerd, _ ocispec.Descriptor) ocispec.Descriptor {
			return c.document(t, ocispec.MediaTypeImageIndex, ocispec.Index{})
		}, ErrIncomplete.Error()},
		"indexes in indexes": {func(t *testing.T, c *containerd, top ocispec.Descriptor) ocispec.Descriptor {
			for range 6 {
				top = c.document(t, ocispec.MediaTypeImageIndex, ocispec.Index{Manifests: []ocispec.Descriptor{top}})
			}
			return top
		}, "deep"},
		"a manifest of 9 MiB": {func(_ *testing.T, c *containerd, _ ocispec.Descriptor) ocispec.Descriptor {
			return c.put(ocispec.MediaTypeImageManifest, make([]byte, 9<<20))
		}, "are the most"},
	} {
		t.Run(name, func(t *testing.T) {
			store := &containerd{blobs: map[string][]byte{}}
			store.name(c.spoil(t, store, store.manifest(t, "layer")), "registry.example/app:1")
			s := store.store(t)
			all, err := s.Images(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Export(t.Context(), io.Discard, all[0]); err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "app:1") {
				t.Errorf("got %v", err)
			}
		})
	}
}
