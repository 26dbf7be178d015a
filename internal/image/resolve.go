package image

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

// acceptManifests are the types that are understood; registries choose among them.
var acceptManifests = strings.Join([]string{
	images.MediaTypeDockerSchema2Manifest, images.MediaTypeDockerSchema2ManifestList,
	ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, "*/*",
}, ", ")

// resolve asks what the reference names.
func (r *registry) resolve(ctx context.Context) (ocispec.Descriptor, error) {
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

// lookUp asks one host. HEAD costs nothing where pulls are counted, and is enough if the manifest is here. GET is what
// a host has to know, and what it sends can be checked, where hosts are wrong about length and digest in HEAD.
func (h *host) lookUp(ctx context.Context, t turn) (ocispec.Descriptor, error) {
	q := request{method: http.MethodHead, accept: acceptManifests, limit: t.limit, last: t.last}
	q.what = "manifests/" + h.reg.ref.Tag
	if want := h.reg.ref.Digest; want != "" {
		q.what = "manifests/" + want.String()
	}
	resp, err := h.ask(ctx, q)
	if err != nil && !mayKnowGet(err) {
		return ocispec.Descriptor{}, err
	}
	if err == nil {
		desc, here := h.described(ctx, resp)
		_ = resp.Body.Close() // has none
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

// mayKnowGet reports an error of HEAD that does not mean that GET fails, too.
func mayKnowGet(err error) bool {
	var status *statusError
	if errors.As(err, &status) {
		return !status.busy() && status.code != http.StatusUnauthorized
	}
	return isAccident(err)
}

// described makes a descriptor of the answer to HEAD, if it is about a manifest that is here.
func (h *host) described(ctx context.Context, resp *http.Response) (ocispec.Descriptor, bool) {
	desc := ocispec.Descriptor{MediaType: mediaType(resp), Digest: digest.Digest(resp.Header.Get("Docker-Content-Digest"))}
	want := h.reg.ref.Digest
	if reference.CheckDigest(desc.Digest) != nil || want != "" && desc.Digest != want {
		return desc, false
	}
	info, err := h.reg.store.content.Info(ctx, desc.Digest)
	desc.Size = info.Size
	return desc, err == nil
}

func mediaType(resp *http.Response) string {
	t, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")) //nolint:errcheck // a wrong type counts as none
	return t
}

// readManifest makes a descriptor of the manifest itself, and keeps it.
func (h *host) readManifest(resp *http.Response) (ocispec.Descriptor, error) {
	none := ocispec.Descriptor{}
	body, err := decoded(resp, -1)
	if err != nil {
		return none, err
	}
	raw, err := io.ReadAll(io.LimitReader(body, maxDocument+1))
	if err != nil {
		return none, fmt.Errorf("read manifest: %w", err)
	}
	if len(raw) > maxDocument {
		return none, fmt.Errorf("manifest is longer than the %d bytes that are read: %w", maxDocument, errdefs.ErrFailedPrecondition)
	}
	desc := ocispec.Descriptor{MediaType: mediaType(resp), Size: int64(len(raw))}
	algorithm := digest.SHA256
	if want := h.reg.ref.Digest; want != "" {
		algorithm = want.Algorithm()
	}
	if !algorithm.Available() {
		return none, fmt.Errorf("digest algorithm %s is not supported: %w", algorithm, errdefs.ErrFailedPrecondition)
	}
	desc.Digest = algorithm.FromBytes(raw)
	for _, want := range []digest.Digest{h.reg.ref.Digest, digest.Digest(resp.Header.Get("Docker-Content-Digest"))} {
		if want.Validate() == nil && want.Algorithm() == algorithm && want != desc.Digest {
			return none, &contentError{fmt.Sprintf("%s has sent a manifest that is %s and not %s", h.host, desc.Digest, want)}
		}
	}
	var kind struct {
		MediaType string `json:"mediaType"`
	}
	if err := json.Unmarshal(raw, &kind); err != nil {
		return none, fmt.Errorf("manifest is not readable: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	if kind.MediaType != "" {
		desc.MediaType = kind.MediaType
	}
	h.reg.progress.receive(desc.Digest, len(raw))
	h.reg.top.desc, h.reg.top.raw = desc, raw
	return desc, nil
}

// contentError says that a host has sent something else than was asked for.
type contentError struct{ text string }

func (e *contentError) Error() string { return e.text }
