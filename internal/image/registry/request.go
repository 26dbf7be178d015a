package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
)

const (
	// maxErrorBody limits how much of an error answer is read.
	maxErrorBody = 64 << 10
	// maxChallenges is how often one request may get 401: once for each host on its way, and once
	// for an expired token.
	maxChallenges = 3
	// maxRefusals is how often a request is repeated because the host is busy.
	maxRefusals = 5
)

// request is one request to a host of the registry.
type request struct {
	method string
	what   string // "manifests/latest", "blobs/sha256:…": the path after the repository
	accept string
	from   int64         // the first byte that is wanted
	limit  time.Duration // until the answer begins, and then until the first piece of its body
	last   bool          // no other host is asked if this one refuses
}

// statusError is an error answer.
type statusError struct {
	method, url string
	code        int
	says        string        // the registry's explanation
	retryAfter  time.Duration // -1 if the answer has none
}

func (e *statusError) Error() string {
	text := fmt.Sprintf("%s %s: %d %s", e.method, e.url, e.code, http.StatusText(e.code))
	if e.says != "" {
		text += ": " + e.says
	}
	return text
}

// busy reports whether the server may answer the same request later.
func (e *statusError) busy() bool {
	return e.code == http.StatusTooManyRequests || e.code == http.StatusServiceUnavailable
}

// ask sends a request. It repeats the request after a pause if the host is busy. On the last host
// it also repeats it once after a failure that may be temporary. The caller closes the answer's
// body; its status is 2xx.
func (h *host) ask(ctx context.Context, q request) (*http.Response, error) {
	for refusals, accidents := 0, 0; ; {
		if err := h.waitPause(ctx, q); err != nil {
			return nil, err
		}
		resp, err := h.once(ctx, q)
		if err == nil {
			h.repo.client.hosts.recover(h.key())
			return resp, nil
		}
		var status *statusError
		switch busy := errors.As(err, &status) && status.busy(); {
		case busy:
			pause := status.retryAfter
			if pause < 0 {
				pause = backOff(refusals)
			}
			h.repo.client.hosts.pause(h.key(), min(pause, maxPauses))
			if refusals++; !q.last || refusals >= maxRefusals {
				return nil, err
			}
			h.repo.log.Debug("registry is busy", "host", h.host, "status", status.code, "pause", pause)
		case q.last && accidents == 0 && isAccident(err):
			accidents++
		default:
			return nil, err
		}
	}
}

// waitPause waits until the host accepts requests again, unless that takes too long.
func (h *host) waitPause(ctx context.Context, q request) error {
	pause := h.repo.client.hosts.paused(h.key())
	if pause <= 0 {
		return nil
	}
	if !q.last || pause > maxPause || time.Duration(h.repo.pauses.Add(int64(pause))) > maxPauses {
		return fmt.Errorf("%s asks for a pause of %v: %w", h.host, pause.Round(time.Second), ErrUnavailable)
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// isAccident reports a failure of the host or the connection that may not happen again.
func isAccident(err error) bool {
	var status *statusError
	if errors.As(err, &status) {
		return status.code == http.StatusInternalServerError || status.code == http.StatusBadGateway ||
			status.code == http.StatusGatewayTimeout || status.code == http.StatusRequestTimeout
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}

// once sends a request, and again with credentials if the server asks for them.
func (h *host) once(ctx context.Context, q request) (*http.Response, error) {
	var refusals []*http.Response
	for {
		resp, err := h.send(ctx, q)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusUnauthorized || len(refusals) >= maxChallenges {
			return accept(resp)
		}
		if len(refusals) == 0 && resp.Request.Header.Get("Authorization") != "" {
			h.login() // The token has expired. The authorizer notices that only with some registries.
		}
		resp.Header["Www-Authenticate"] = challenges(resp.Header.Values("WWW-Authenticate"))
		refusals = append(refusals, resp)
		h.mu.Lock()
		authorizer := h.authorizer
		h.mu.Unlock()
		err = authorizer.AddResponses(ctx, refusals)
		if errdefs.IsNotImplemented(err) {
			return accept(resp)
		}
		_ = resp.Body.Close() // the body is not needed
		if err != nil {
			return nil, err
		}
	}
}

// accept returns a good answer, and makes a statusError of any other.
func accept(resp *http.Response) (*http.Response, error) {
	if resp.StatusCode < 300 {
		return resp, nil
	}
	return nil, refused(resp)
}

// refused makes an error of an answer, and closes it.
func refused(resp *http.Response) *statusError {
	defer func() { _ = resp.Body.Close() }() // only read from
	u := resp.Request.URL
	e := &statusError{
		method: resp.Request.Method, url: (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String(), code: resp.StatusCode,
		retryAfter: retryAfter(resp.Header.Get("Retry-After")),
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) //nolint:errcheck // a part of the text is enough
	var answer struct {
		Errors []struct {
			Code, Message string
		}
	}
	if json.Unmarshal(body, &answer) == nil {
		var says []string
		for _, one := range answer.Errors {
			says = append(says, strings.ToLower(strings.ReplaceAll(one.Code, "_", " "))+": "+one.Message)
		}
		e.says = strings.Join(says, ", ")
	}
	return e
}

// retryAfter reads the header: seconds or a date (RFC 9110, 10.2.3); -1 if it is neither.
func retryAfter(text string) time.Duration {
	if seconds, err := strconv.ParseUint(text, 10, 63); err == nil {
		return time.Duration(min(seconds, uint64(24*time.Hour/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, time.Until(at))
	}
	return -1
}

// send sends a request once. The limit lasts until the answer begins, with tokens and redirects.
func (h *host) send(ctx context.Context, q request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(docker.WithScope(ctx, "repository:"+h.repo.ref.Path()+":pull"))
	timer := time.AfterFunc(q.limit, func() { cancel(&stallError{host: h.host, after: q.limit}) })
	resp, err := h.sendWithin(ctx, q)
	if !timer.Stop() && err == nil { // the timer has ended the answer's context
		_ = resp.Body.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		err = explain(ctx, err)
		cancel(nil)
		return nil, err
	}
	resp.Body = &stallBody{
		body: resp.Body, ctx: ctx, cancel: cancel, host: resp.Request.URL.Host, stall: h.repo.client.StallTimeout,
		limit: q.limit, left: q.limit,
	}
	return resp, nil
}

func (h *host) sendWithin(ctx context.Context, q request) (*http.Response, error) {
	u := url.URL{Scheme: h.scheme, Host: h.host, Path: path.Join("/", h.path, h.repo.ref.Path(), q.what)}
	if ns := h.repo.ref.Host(); ns != u.Host && (ns != "docker.io" || u.Host != "registry-1.docker.io") {
		u.RawQuery = url.Values{"ns": {ns}}.Encode() // tells a mirror of several registries which one is meant
	}
	req, err := http.NewRequestWithContext(ctx, q.method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", agent)
	for name, values := range h.header {
		req.Header[name] = append([]string(nil), values...)
		if name == "Host" {
			req.Host = values[0]
		}
	}
	req.Header.Add("Accept", q.accept)
	req.Header.Set("Accept-Encoding", "identity")
	if q.from > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", q.from))
	}
	if err := h.authorize(ctx, req); err != nil {
		return nil, err
	}
	return h.client.Do(req)
}
