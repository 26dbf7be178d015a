package image

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	// leastPiece is what has to arrive within the stall timeout for a body to count as coming at all.
	leastPiece = 4 << 10
	// maxTokenAnswer bounds the answer of a token server.
	maxTokenAnswer = 1 << 20
)

// stallError says that a host has sent nothing, or next to nothing, for too long.
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

// explain prefers the reason for which ctx was ended to its consequence.
func explain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// stallBody ends a body of which leastPiece bytes, or the end, do not come within stall; the first of them have as long
// as the answer had to begin. Time during which it is not read does not count. It owns the response's body and its
// context; Close ends both.
type stallBody struct {
	body   io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	host   string
	stall  time.Duration

	limit time.Duration // for this piece
	left  time.Duration // of limit
	got   int           // of this piece
}

// Read implements io.Reader.
func (b *stallBody) Read(p []byte) (int, error) {
	began := time.Now()
	few := b.left < b.limit/2 // some bytes have come, but they took most of the time
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

// tokenTransport carries the requests for tokens: their answers are bounded, and no token is asked for without TLS
// where the registry has TLS. A host that is busy or broken is an error as the registry's own hosts make it,
// which tells how long to wait; the authorizer would keep the status only.
type tokenTransport struct {
	base   http.RoundTripper
	secret bool // the registry itself is asked through TLS
}

// RoundTrip implements http.RoundTripper.
func (t *tokenTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.secret && req.URL.Scheme != "https" {
		return nil, fmt.Errorf("token server %s is not asked without TLS, since its registry has TLS", req.URL.Host)
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
