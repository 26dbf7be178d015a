package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	// leastPiece is how many bytes must arrive within the stall timeout; with fewer the body has
	// stalled.
	leastPiece = 4 << 10
	// maxTokenAnswer limits the answer of a token server.
	maxTokenAnswer = 1 << 20
)

// stallError says that a host has sent nothing, or almost nothing, for too long.
type stallError struct {
	host  string
	after time.Duration
	few   bool
}

func (e *stallError) Error() string {
	if e.few {
		return fmt.Sprintf("%s has sent less than %d bytes in %v", e.host, leastPiece, e.after)
	}
	return fmt.Sprintf("%s has sent no byte for %v", e.host, e.after)
}

// explain returns the reason why ctx was ended, if there is one, rather than the error that
// followed.
func explain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// stallBody ends a body if leastPiece bytes, or the end, do not arrive within stall. The first
// piece has the same limit as the answer. Time in which it is not read does not count. It owns the
// response's body and its context; Close ends both.
type stallBody struct {
	body   io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	host   string
	stall  time.Duration

	limit time.Duration // for this piece
	left  time.Duration // what is left of limit
	got   int           // bytes of this piece
}

// Read implements io.Reader.
func (b *stallBody) Read(p []byte) (int, error) {
	began := time.Now()
	few := b.left < b.limit/2 // some bytes have arrived, but they took most of the time
	timer := time.AfterFunc(b.left, func() { b.cancel(&stallError{host: b.host, after: b.limit, few: few}) })
	n, err := b.body.Read(p)
	timer.Stop()
	b.left -= time.Since(began)
	if b.got += n; b.got >= leastPiece {
		b.got, b.limit, b.left = 0, b.stall, b.stall
	}
	if err != nil && err != io.EOF { //nolint:errorlint // io.Reader's contract: io.EOF itself
		err = explain(b.ctx, err)
	}
	return n, err
}

// Close implements io.Closer.
func (b *stallBody) Close() error {
	err := b.body.Close()
	b.cancel(nil)
	return err
}

// tokenTransport sends the requests for tokens. It limits their answers. If the registry has TLS,
// it never asks for a token without TLS. If a token server is busy or broken, the error is the same
// as of the registry's own hosts and tells how long to wait; the authorizer would keep the status
// only.
type tokenTransport struct {
	base   http.RoundTripper
	secret bool // the registry itself is asked through TLS
}

// RoundTrip implements http.RoundTripper.
func (t *tokenTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.secret && req.URL.Scheme != "https" {
		return nil, fmt.Errorf("token server %s has no TLS, but its registry has", req.URL.Host)
	}
	resp, err := t.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if e := (&statusError{code: resp.StatusCode}); e.busy() || isAccident(e) {
		return nil, refused(resp)
	}
	resp.Body = &boundedBody{io.LimitReader(resp.Body, maxTokenAnswer), resp.Body}
	return resp, nil
}

type boundedBody struct {
	io.Reader
	io.Closer
}
