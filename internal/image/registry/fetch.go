package registry

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/pinfold-run/pinfold/internal/image/blob"
	"github.com/pinfold-run/pinfold/internal/image/layer"
	"github.com/pinfold-run/pinfold/internal/image/secret"
)

const (
	// maxInterruptions is how often a download is resumed at one host. Each attempt must have made
	// progress.
	maxInterruptions = 5
	// goodProgress is how many bytes a host must have sent before it stalled, to be asked to
	// continue.
	goodProgress = 1 << 20
	copyBuffer   = 128 << 10
)

// download is something to download, and the name of its download in the content store.
type download struct {
	ocispec.Descriptor
	ingest string
}

// Bring downloads a blob into the content store, if it is not there. Equal downloads of several
// pulls take turns: the second finds the blob, or continues where the first one failed. A pull from
// another registry waits for its turn only for a while: its own registry may be faster.
func (r *Repository) Bring(ctx context.Context, desc ocispec.Descriptor) error {
	leave, err := r.client.Blobs.Lock(ctx, desc.Digest.String()+" of "+r.ref.Host())
	if err != nil {
		return err
	}
	defer leave()
	b := download{desc, blob.IngestName(desc.Digest)}
	waitCtx, cancel := context.WithTimeout(ctx, min(answerLimit, r.client.StallTimeout))
	unlock, err := r.client.Blobs.Lock(waitCtx, desc.Digest.String())
	cancel()
	switch {
	case err == nil:
		defer unlock()
	case ctx.Err() != nil:
		return ctx.Err()
	default:
		b.ingest += " of " + r.ref.Host()
		defer func() { _ = r.client.Blobs.Abort(context.WithoutCancel(ctx), b.ingest) }() // none after success
	}
	if _, err := r.client.Blobs.Info(ctx, desc.Digest); err == nil {
		return nil
	}
	if r.top.raw != nil && desc.Digest == r.top.desc.Digest {
		// A part of an earlier download may be damaged. It saves nothing.
		if err := r.client.Blobs.Abort(ctx, b.ingest); err != nil && !errdefs.IsNotFound(err) {
			return blob.DiskClass(err)
		}
		raw := bytes.NewReader(r.top.raw)
		r.top.raw = nil
		return blob.DiskClass(content.WriteBlob(ctx, r.client.Blobs, b.ingest, raw, r.top.desc))
	}
	// desc.URLs is not used: a manifest must not make the node contact hosts other than the
	// registry.
	err = r.each(ctx, func(h *host) bool { return h.pull }, func(h *host, t turn) error { return r.download(ctx, h, t, b) })
	if err == nil {
		return nil
	}
	return r.failure(fmt.Sprintf("download %s from %s (%d of %d bytes received)", desc.Digest, r.hostNames(),
		r.have(ctx, b), desc.Size), err)
}

// download downloads a blob from one host. The blob's lock is held. What has arrived stays for the
// next host or the next pull, unless it is wrong.
func (r *Repository) download(ctx context.Context, h *host, t turn, b download) error {
	if layer.IsLayer(b.Descriptor) {
		release, err := r.client.hosts.slot(ctx, h.key(), r.client.MaxDownloads)
		if err != nil {
			return err
		}
		defer release()
		if !t.last && r.client.hosts.isDown(h.key()) { // the server failed in another pull meanwhile
			return fmt.Errorf("%s did not answer a moment ago: %w", h.host, ErrUnavailable)
		}
	}
	restarted := false
	for try := 0; ; try++ {
		had, err := r.attempt(ctx, h, t, b)
		if err == nil {
			return nil
		}
		have := r.have(ctx, b)
		stalled := errors.As(err, new(*stallError))
		switch class := classOf(err); {
		case isFinal(ctx, err):
			return err
		case errdefs.IsDataLoss(class):
			if abortErr := r.client.Blobs.Abort(ctx, b.ingest); abortErr != nil {
				return &localError{errors.Join(err, abortErr)}
			}
			// After a power cut the kept bytes may be zeros, and another host may have sent wrong
			// ones. Only a download from the start proves that this host is wrong.
			if had == 0 || restarted {
				return err
			}
			restarted = true
		case !errdefs.IsUnavailable(class) || have <= had || try >= maxInterruptions,
			stalled && (!t.last || have-had < goodProgress):
			return err
		}
		r.log.Info("resuming a download", "host", h.host, "bytes", r.have(ctx, b), "reason", secret.Scrub(err.Error(), r.secrets.All()))
	}
}

// have is how many bytes of a download are kept.
func (r *Repository) have(ctx context.Context, b download) int64 {
	st, err := r.client.Blobs.Status(ctx, b.ingest)
	if err != nil {
		return 0
	}
	return st.Offset
}

// attempt makes one attempt to download. had is how many bytes were kept before.
func (r *Repository) attempt(ctx context.Context, h *host, t turn, desc download) (had int64, err error) {
	w, err := content.OpenWriter(ctx, r.client.Blobs, content.WithRef(desc.ingest),
		content.WithDescriptor(desc.Descriptor))
	if err != nil {
		return 0, &localError{err}
	}
	defer func() { _ = w.Close() }() // after Commit this does nothing; otherwise it keeps what has arrived
	st, err := w.Status()
	if err != nil {
		return 0, &localError{err}
	}
	if st.Offset > desc.Size {
		return st.Offset, &contentError{"more bytes are kept than the blob has"}
	}
	if st.Offset == 0 {
		// The ingest may be damaged: the content store may have kept the file with its old length.
		if err := w.Truncate(0); err != nil {
			return 0, &localError{err}
		}
	}
	r.progress.Have(desc.Digest, st.Offset)
	if st.Offset < desc.Size || desc.Size == 0 {
		if err := h.receive(ctx, t, desc.Descriptor, w, st.Offset); err != nil {
			return st.Offset, err
		}
	}
	switch err := w.Commit(ctx, desc.Size, desc.Digest); {
	case err == nil, errdefs.IsAlreadyExists(err):
		return st.Offset, nil
	case errdefs.IsFailedPrecondition(err): // the content store's class for another size or digest
		return st.Offset, &contentError{fmt.Sprintf("%s sent other content: %v", h.host, err)}
	default:
		return st.Offset, &localError{err}
	}
}

// receive writes what a host sends of a blob, from offset on.
func (h *host) receive(ctx context.Context, t turn, desc ocispec.Descriptor, w io.Writer, offset int64) error {
	q := request{method: http.MethodGet, what: "blobs/" + desc.Digest.String(), accept: "*/*", from: offset, limit: t.limit, last: t.last}
	if images.IsManifestType(desc.MediaType) || images.IsIndexType(desc.MediaType) {
		q.what, q.accept = "manifests/"+desc.Digest.String(), acceptManifests // the media type in an index may be wrong
	}
	resp, err := h.ask(ctx, q)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // only read from
	start, err := startOf(resp, offset)
	if err != nil {
		return err
	}
	body, err := decoded(resp, desc.Size-start)
	if err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, body, offset-start); err != nil {
		return fmt.Errorf("skip what is kept already: %w", unexpected(err))
	}
	buffer := make([]byte, copyBuffer)
	for at := offset; ; {
		n, err := body.Read(buffer)
		if at+int64(n) > desc.Size {
			return &contentError{fmt.Sprintf("%s sends more than the %d bytes of the blob", h.host, desc.Size)}
		}
		if n > 0 {
			if _, err := w.Write(buffer[:n]); err != nil {
				return &localError{err}
			}
			at += int64(n)
			h.repo.progress.Receive(desc.Digest, n)
		}
		switch {
		case err == io.EOF && at == desc.Size: //nolint:errorlint // io.Reader's contract: io.EOF itself
			return nil
		case err == io.EOF && resp.ContentLength >= 0: //nolint:errorlint // as above
			return &contentError{fmt.Sprintf("%s has %d bytes and not the %d of the blob", h.host, at, desc.Size)}
		case err != nil:
			return unexpected(err)
		}
	}
}

// unexpected makes io.ErrUnexpectedEOF of io.EOF.
func unexpected(err error) error {
	if err == io.EOF { //nolint:errorlint // io.Reader's contract: io.EOF itself
		return io.ErrUnexpectedEOF
	}
	return err
}

// startOf returns the offset at which an answer begins. A host may send the whole blob although a
// part was asked for.
func startOf(resp *http.Response, asked int64) (int64, error) {
	if resp.StatusCode != http.StatusPartialContent {
		return 0, nil
	}
	text := resp.Header.Get("Content-Range")
	from, _, _ := strings.Cut(strings.TrimPrefix(text, "bytes "), "-")
	start, err := strconv.ParseInt(from, 10, 64)
	if err != nil || start < 0 || start > asked {
		return 0, &contentError{fmt.Sprintf("range %.100q was sent, but bytes from %d on were asked for", text, asked)}
	}
	return start, nil
}

// decoded removes the content encoding of the body. None was asked for, but some blob stores say
// "gzip" for content that is compressed itself. Then the length is the blob's. wanted is -1 if the
// length is not known.
func decoded(resp *http.Response, wanted int64) (io.Reader, error) {
	switch encoding := strings.ToLower(resp.Header.Get("Content-Encoding")); encoding {
	case "", "identity":
		return resp.Body, nil
	case "gzip", "x-gzip":
		if wanted >= 0 && resp.ContentLength == wanted {
			return resp.Body, nil
		}
		if resp.StatusCode == http.StatusPartialContent {
			return nil, &contentError{"a part of an encoded blob was sent"}
		}
		body, err := gzip.NewReader(resp.Body)
		if err != nil {
			return nil, fmt.Errorf("content encoding gzip: %w", unexpected(err))
		}
		return body, nil
	default:
		return nil, &contentError{fmt.Sprintf("content encoding %.50q was sent, but none was asked for", encoding)}
	}
}
