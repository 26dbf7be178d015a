package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/pinfold-run/pinfold/internal/image/blob"
	"github.com/pinfold-run/pinfold/internal/image/reference"
	"github.com/pinfold-run/pinfold/internal/image/secret"
)

// answerLimit is how long a host may take to begin its answer if another host can be asked.
const answerLimit = 10 * time.Second

// Config is what a Client needs.
type Config struct {
	// ConfigDir has HOST/hosts.toml and certificates in containerd's certs.d layout. Colons separate several
	// directories. They are read at every pull and may be missing.
	ConfigDir string
	// Log gets progress, and errors that are not returned.
	Log *slog.Logger
	// Blobs is where downloads go.
	Blobs *blob.Store
	// MaxDownloads is how many layers all pulls together download from one host at a time.
	MaxDownloads int
	// StallTimeout is how long a host may send nothing, or almost nothing. Then another one is asked, or the pull ends.
	StallTimeout time.Duration
}

// Client asks registries. Across pulls, it remembers which hosts cannot be reached and which are busy.
type Client struct {
	Config
	dirs  atomic.Pointer[string] // of the configuration; they can change
	hosts hostStates
}

// NewClient makes a client; it makes no connection yet.
func NewClient(config Config) *Client {
	c := &Client{Config: config}
	c.SetConfigDir(config.ConfigDir)
	return c
}

// SetConfigDir makes pulls that begin from now on read other directories.
func (c *Client) SetConfigDir(dirs string) { c.dirs.Store(&dirs) }

// Progress is told how much of a blob is on the node.
type Progress interface {
	// Have says how many bytes are there.
	Have(blob digest.Digest, bytes int64)
	// Receive says how many more bytes have come.
	Receive(blob digest.Digest, bytes int)
}

// Repository is one reference and the hosts that may have it, during one pull.
type Repository struct {
	client   *Client
	ref      reference.Reference
	auth     *Auth
	log      *slog.Logger
	hosts    []*host
	secrets  secret.Set
	progress Progress
	pauses   atomic.Int64 // time waited for busy hosts

	// top is the manifest that the reference led to, if it had to be fetched to learn that.
	top struct {
		desc ocispec.Descriptor
		raw  []byte
	}
}

// Connect reads the configuration of the reference's host. It makes no connection yet. The caller calls Close.
func (c *Client) Connect(ref reference.Reference, auth *Auth, progress Progress) (*Repository, error) {
	if _, _, err := auth.login(); err != nil {
		return nil, err
	}
	r := &Repository{client: c, ref: ref, auth: auth, log: c.Log.With("image", ref.String()), progress: progress}
	r.secrets.Add(auth.secrets()...)
	r.secrets.Add(secret.OfProxies()...)
	configs, err := c.hostConfigs(ref.Host())
	for i := 0; err == nil && i < len(configs); i++ {
		var h *host
		if h, err = r.newHost(configs[i]); err == nil {
			r.hosts = append(r.hosts, h)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("registry configuration of %s: %s: %w", ref.Host(), secret.Scrub(err.Error(), r.secrets.All()),
			errdefs.ErrFailedPrecondition)
	}
	return r, nil
}

// Secrets are the strings that no text about the pull may show. More come while hosts are asked.
func (r *Repository) Secrets() []string { return r.secrets.All() }

// Close closes the connections.
func (r *Repository) Close() {
	for _, h := range r.hosts {
		h.transport.CloseIdleConnections()
	}
}

// hostNames lists the servers, for messages.
func (r *Repository) hostNames() string {
	var names []string
	for _, h := range r.hosts {
		names = append(names, h.host)
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}

// turn says how a host is asked.
type turn struct {
	limit time.Duration // until an answer begins
	last  bool          // no server is asked after this one
}

// each asks the hosts for which may is true, until want succeeds for one. Servers that were down in
// the last minute come last. While another host can be asked, a host has only answerLimit. If all
// fail, the hosts that were only too slow are asked again, with the full limit. That happens once
// in a pull.
func (r *Repository) each(ctx context.Context, may func(*host) bool, want func(*host, turn) error) error {
	order := slices.DeleteFunc(slices.Clone(r.hosts), func(h *host) bool { return !may(h) })
	if len(order) == 0 {
		return fmt.Errorf("no host is configured for this: %w", errdefs.ErrNotFound)
	}
	well := func(h *host) bool { return !r.client.hosts.isDown(h.key()) }
	slices.SortStableFunc(order, func(a, b *host) int { return rank(well(b)) - rank(well(a)) })
	var failures []hostFailure
	var again []*host
	limit := r.client.StallTimeout
	for i, h := range order {
		t := turn{limit: limit, last: i == len(order)-1}
		silent, slow := h.answers()
		if silent && !t.last {
			continue
		}
		if !t.last && !slow {
			t.limit = min(answerLimit, limit)
		}
		err := want(h, t)
		if err == nil || isFinal(ctx, err) {
			return err
		}
		failures = append(failures, hostFailure{h, err})
		if r.note(h, err); t.limit < limit && errors.As(err, new(*stallError)) {
			again = append(again, h)
		} else if errors.As(err, new(*stallError)) {
			h.setAnswers(true, false)
		}
	}
	for _, h := range again {
		err := want(h, turn{limit: limit, last: true})
		h.setAnswers(err != nil, err == nil)
		if err == nil || isFinal(ctx, err) {
			return err
		}
	}
	return worst(failures)
}

func rank(good bool) int {
	if good {
		return 1
	}
	return 0
}

// note records that a host is down, for this pull and others.
func (r *Repository) note(h *host, err error) {
	var status *statusError
	if isNetwork(err) || errors.As(err, new(*stallError)) || errors.As(err, &status) && status.code >= 500 {
		r.client.hosts.setDown(h.key())
	}
}

func (h *host) answers() (silent, slow bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.silent, h.slow
}

func (h *host) setAnswers(silent, slow bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.silent, h.slow = silent, slow
}

// localError is a failure of this node. Another host cannot help.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// isFinal reports whether asking another host cannot help.
func isFinal(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.As(err, new(*localError))
}

// hostFailure is why one host failed.
type hostFailure struct {
	host *host
	err  error
}

// hostFailures are the failures of all hosts. The most important one decides the class.
type hostFailures struct {
	text string
	err  error
}

func (e *hostFailures) Error() string { return e.text }
func (e *hostFailures) Unwrap() error { return e.err }

// worst puts the most important failure first: a refusal, then wrong content, then "not
// found", then "unavailable".
func worst(failures []hostFailure) error {
	if len(failures) == 1 {
		return failures[0].err
	}
	weight := func(f hostFailure) int {
		switch class := classOf(f.err); {
		case errdefs.IsUnavailable(class):
			return 0
		case errdefs.IsNotFound(class):
			return 1
		case errdefs.IsDataLoss(class):
			return 2
		}
		return 3
	}
	slices.SortStableFunc(failures, func(a, b hostFailure) int { return weight(b) - weight(a) })
	var texts []string
	for _, f := range failures {
		texts = append(texts, f.host.host+": "+f.err.Error())
	}
	return &hostFailures{text: strings.Join(texts, "; "), err: failures[0].err}
}
