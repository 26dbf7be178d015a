package image

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// stallError says that a registry has sent nothing for too long. It is no net.Error with Timeout(): containerd's
// resolver would repeat the request, and each repetition would wait as long again.
type stallError struct {
	host  string
	after time.Duration
}

func (e *stallError) Error() string {
	return fmt.Sprintf("%s has sent no byte for %v", e.host, e.after)
}

// stallTransport ends a request whose answer, or the next piece of its body, does not come within stall. Time
// during which nobody reads does not count.
type stallTransport struct {
	base  http.RoundTripper
	stall time.Duration
}

func (t *stallTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	stalled := &stallError{host: req.URL.Host, after: t.stall}
	timer := time.AfterFunc(t.stall, func() { cancel(stalled) })
	resp, err := t.base.RoundTrip(req.WithContext(ctx))
	timer.Stop()
	if err != nil {
		err = explain(ctx, err)
		cancel(nil)
		return nil, err
	}
	resp.Body = &stallBody{body: resp.Body, ctx: ctx, cancel: cancel, timer: timer, stall: t.stall}
	return resp, nil
}

// explain prefers the reason for which ctx was ended to its consequence.
func explain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// stallBody owns the response's body and its context; Close ends both.
type stallBody struct {
	body   io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	stall  time.Duration
}

func (b *stallBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.stall)
	n, err := b.body.Read(p)
	b.timer.Stop()
	if err != nil && err != io.EOF { //nolint:errorlint // io.Reader's contract: io.EOF itself
		err = explain(b.ctx, err)
	}
	return n, err
}

func (b *stallBody) Close() error {
	b.timer.Stop()
	err := b.body.Close()
	b.cancel(nil)
	return err
}
