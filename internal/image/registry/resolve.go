package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/pinfold-run/pinfold/internal/image/reference"
)

// MaxManifest bounds manifests and indexes, in bytes. They are read into memory.
const MaxManifest = 4 << 20

// acceptManifests are the media types that the store can read. Registries choose among them.
var acceptManifests = strings.Join([]string{
	images.MediaTypeDockerSchema2Manifest, images.MediaTypeDockerSchema2ManifestList,
	ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, "*/*",
}, ", ")

// Resolve asks for the digest of the reference.
func (r *Repository) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	var desc ocispec.Descriptor
	may := func(h *host) bool { return h.pull && (h.resolve || r.ref.Digest != "") }
	err := r.each(ctx, may, func(h *host, t turn) (err error) {
		desc, err = h.lookUp(ctx, t)
		return err
	})
	if err != nil {
		return desc, r.failure(fmt.Sprintf("look up at %s", r.hostNames()), err)
	}
	return desc, nil
}

// lookUp asks one host. HEAD does not count as a pull, and is enough if the node has the manifest.
// GET works on every host, and its answer can be checked; some hosts send a wrong length or digest
// with HEAD.
func (h *host) lookUp(ctx context.Context, t turn) (ocispec.Descriptor, error) {
	q := request{method: http.MethodHead, accept: acceptManifests, limit: t.limit, last: t.last}
	q.what = "manifests/" + h.repo.ref.Tag
	if want := h.repo.ref.Digest; want != "" {
		q.what = "manifests/" + want.String()
	}
	resp, err := h.ask(ctx, q)
	if err != nil && !mayKnowGet(err) {
		return ocispec.Descriptor{}, err
	}
	if err == nil {
		desc, here := h.described(ctx, resp)
		_ = resp.Body.Close() // HEAD has no body
		if here {
			return desc, nil
		}
	}
	q.method = http.MethodGet
	desc, err := h.getManifest(ctx, q)
	if err != nil && q.last && isAccident(err) {
		desc, err = h.getManifest(ctx, q)
	}
	return desc, err
}

func (h *host) getManifest(ctx context.Context, q request) (ocispec.Descriptor, error) {
	resp, err := h.ask(ctx, q)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer func() { _ = resp.Body.Close() }() // only read from
	return h.readManifest(resp)
}

// mayKnowGet reports an error of HEAD after which GET may still succeed.
func mayKnowGet(err error) bool {
	var status *statusError
	if errors.As(err, &status) {
		return !status.busy() && status.code != http.StatusUnauthorized
	}
	return isAccident(err)
}

// described makes a descriptor of the answer to HEAD, if the node has that manifest.
func (h *host) described(ctx context.Context, resp *http.Response) (ocispec.Descriptor, bool) {
	desc := ocispec.Descriptor{MediaType: mediaType(resp), Digest: digest.Digest(resp.Header.Get("Docker-Content-Digest"))}
	want := h.repo.ref.Digest
	if reference.CheckDigest(desc.Digest) != nil || want != "" && desc.Digest != want {
		return desc, false
	}
	info, err := h.repo.client.Blobs.Info(ctx, desc.Digest)
	desc.Size = info.Size
	return desc, err == nil
}

func mediaType(resp *http.Response) string {
	t, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")) //nolint:errcheck // a wrong type counts as no type
	return t
}

// readManifest stores the manifest and makes its descriptor.
func (h *host) readManifest(resp *http.Response) (ocispec.Descriptor, error) {
	none := ocispec.Descriptor{}
	body, err := decoded(resp, -1)
	if err != nil {
		return none, err
	}
	raw, err := io.ReadAll(io.LimitReader(body, MaxManifest+1))
	if err != nil {
		return none, fmt.Errorf("read manifest: %w", err)
	}
	if len(raw) > MaxManifest {
		return none, fmt.Errorf("manifest is longer than the limit of %d bytes: %w", MaxManifest, errdefs.ErrFailedPrecondition)
	}
	desc := ocispec.Descriptor{MediaType: mediaType(resp), Size: int64(len(raw))}
	algorithm := digest.SHA256
	if want := h.repo.ref.Digest; want != "" {
		algorithm = want.Algorithm()
	}
	if !algorithm.Available() {
		return none, fmt.Errorf("digest algorithm %s is not supported: %w", algorithm, errdefs.ErrFailedPrecondition)
	}
	desc.Digest = algorithm.FromBytes(raw)
	for _, want := range []digest.Digest{h.repo.ref.Digest, digest.Digest(resp.Header.Get("Docker-Content-Digest"))} {
		if want.Validate() == nil && want.Algorithm() == algorithm && want != desc.Digest {
			return none, &contentError{fmt.Sprintf("%s sent a manifest with digest %s, not %s", h.host, desc.Digest, want)}
		}
	}
	var kind struct {
		MediaType string `json:"mediaType"`
	}
	if err := json.Unmarshal(raw, &kind); err != nil {
		return none, fmt.Errorf("manifest cannot be parsed: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	if kind.MediaType != "" {
		desc.MediaType = kind.MediaType
	}
	h.repo.progress.Receive(desc.Digest, len(raw))
	h.repo.top.desc, h.repo.top.raw = desc, raw
	return desc, nil
}

// contentError says that a host sent something else than it was asked for.
type contentError struct{ text string }

func (e *contentError) Error() string { return e.text }
