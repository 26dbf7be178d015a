package registry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

const (
	// maxRedirects is how many redirects one request follows.
	maxRedirects = 10
	// maxHeaderAnswer limits the header of an answer.
	maxHeaderAnswer = 256 << 10
	agent           = "pinfold"
)

// host is one address that a registry is asked at, during one pull; the word is that of hosts.toml.
type host struct {
	hostConfig
	repo      *Repository
	client    *http.Client
	transport *http.Transport
	either    bool // TLS is tried first, then plain HTTP

	mu         sync.Mutex
	authorizer docker.Authorizer
	// silent: it had the full time limit in this pull and did not answer. slow: it answered within
	// the full limit only.
	silent, slow bool
}

// newHost makes the client of one host. It does not connect.
func (r *Repository) newHost(config hostConfig) (*host, error) {
	tlsConfig, err := config.tlsConfig()
	if err != nil {
		return nil, err
	}
	h := &host{hostConfig: config, repo: r, transport: docker.DefaultHTTPTransport(tlsConfig)}
	// The time limits are those of request. The header's limit would also count for bodies that are
	// sent later.
	h.transport.ResponseHeaderTimeout = 0
	h.transport.MaxResponseHeaderBytes = maxHeaderAnswer
	h.transport.DisableCompression = true // a blob is the bytes of its digest, not what they unpack to
	if config.dialTimeout > 0 {
		dialer := &net.Dialer{Timeout: config.dialTimeout, KeepAlive: 30 * time.Second}
		h.transport.DialContext = dialer.DialContext
	}
	var trip http.RoundTripper = h.transport
	if _, port, _ := net.SplitHostPort(h.host); h.scheme == "http" && tlsConfig != nil && port != "80" {
		// As in containerd: with keys for TLS, TLS is tried before plain HTTP.
		h.scheme, h.either = "https", true
		trip = docker.NewHTTPFallback(trip)
	}
	h.client = &http.Client{Transport: trip, CheckRedirect: h.checkRedirect}
	for _, values := range h.header {
		h.repo.secrets.Add(values...)
	}
	h.login()
	return h, nil
}

// key names the host in hosts.
func (h *host) key() string { return h.scheme + "://" + h.host }

// login makes a new authorizer. One that has failed once repeats the failure for ever, even if only
// its caller was cancelled.
func (h *host) login() {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.repo.auth
	if a != nil && a.RegistryToken != "" && a.serves(h.host) {
		h.authorizer = bearer{host: h.host, token: a.RegistryToken}
		return
	}
	tokens := *h.client
	tokens.Transport = &tokenTransport{base: h.client.Transport, secret: h.scheme == "https" && !h.either}
	tokens.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if !sameHost(req, via[0]) {
			h.strip(req)
		}
		return tooMany(via)
	}
	h.authorizer = docker.NewDockerAuthorizer(docker.WithAuthClient(&tokens), docker.WithAuthHeader(h.header),
		docker.WithAuthCreds(func(asks string) (string, string, error) {
			// A host that the registry redirects to gets no credential.
			configured := slices.ContainsFunc(h.repo.hosts, func(h *host) bool { return h.host == asks })
			if !configured || !a.serves(asks) {
				return "", "", nil
			}
			return a.login()
		}))
}

func (h *host) authorize(ctx context.Context, req *http.Request) error {
	h.mu.Lock()
	authorizer := h.authorizer
	h.mu.Unlock()
	if err := authorizer.Authorize(ctx, req); err != nil {
		h.login()
		return fmt.Errorf("authorize: %w", err)
	}
	if _, token, found := strings.Cut(req.Header.Get("Authorization"), " "); found {
		h.repo.secrets.Add(token)
	}
	return nil
}

// checkRedirect follows a redirect. It removes what is for the first host only.
func (h *host) checkRedirect(req *http.Request, via []*http.Request) error {
	if err := tooMany(via); err != nil {
		return err
	}
	if s := req.URL.Scheme; s != "http" && s != "https" {
		return fmt.Errorf("redirect to a URL of scheme %q is not followed", s)
	}
	first := via[0]
	downgrade := first.URL.Scheme == "https" && req.URL.Scheme == "http" && !h.either
	if downgrade && !isByDigest(first) {
		return errors.New("redirect from TLS to plain HTTP is not followed: the answer to a tag could be forged")
	}
	if sameHost(req, first) {
		return nil
	}
	h.strip(req)
	if downgrade {
		return nil
	}
	return h.authorize(req.Context(), req)
}

func sameHost(a, b *http.Request) bool {
	return a.URL.Host == b.URL.Host && a.URL.Scheme == b.URL.Scheme
}

// strip removes from a request to another host what is for the first one. A referer may be a signed
// URL.
func (h *host) strip(req *http.Request) {
	for name := range h.header {
		req.Header.Del(name)
	}
	for _, name := range []string{"Authorization", "Cookie", "Proxy-Authorization", "Referer"} {
		req.Header.Del(name)
	}
	req.Host = ""
}

func tooMany(via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("stopped after %d redirects", maxRedirects)
	}
	return nil
}

// isByDigest reports whether a request names a digest. Then any host's answer can be checked.
func isByDigest(req *http.Request) bool {
	_, err := digest.Parse(path.Base(req.URL.Path))
	return err == nil
}

// bearer sends a token as it is, to one host only.
type bearer struct{ host, token string }

// Authorize implements docker.Authorizer.
func (b bearer) Authorize(_ context.Context, req *http.Request) error {
	if req.URL.Host == b.host {
		req.Header.Set("Authorization", "Bearer "+b.token)
	}
	return nil
}

// AddResponses implements docker.Authorizer.
func (b bearer) AddResponses(context.Context, []*http.Response) error {
	return fmt.Errorf("registry token was refused: %w", errdefs.ErrNotImplemented)
}
