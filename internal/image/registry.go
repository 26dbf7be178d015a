package image

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
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/pinfold-run/pinfold/internal/image/reference"
	"github.com/pinfold-run/pinfold/internal/image/secret"
)

// hurry is how long a host has to begin its answer while there is another one to ask.
const hurry = 10 * time.Second

// registry is the hosts that may have one reference, for the length of one pull.
type registry struct {
	store    *Store
	ref      reference.Reference
	auth     *Auth
	log      *slog.Logger
	hosts    []*host
	secrets  secret.Set
	progress *progress
	pauses   atomic.Int64 // what has been waited for busy hosts

	// top is the manifest that the reference led to, if it had to be fetched to learn that.
	top struct {
		desc ocispec.Descriptor
		raw  []byte
	}
}

// connect reads the configuration of the reference's host; it makes no connection yet. The caller calls close.
func (s *Store) connect(ref reference.Reference, auth *Auth) (*registry, error) {
	if _, _, err := auth.login(); err != nil {
		return nil, err
	}
	r := &registry{
		store: s, ref: ref, auth: auth, log: s.log.With("image", ref.String()),
		progress: &progress{image: ref.String(), began: time.Now()},
	}
	r.secrets.Add(auth.secrets()...)
	r.secrets.Add(secret.OfProxies()...)
	configs, err := s.hostConfigs(ref.Host())
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

func (r *registry) close() {
	for _, h := range r.hosts {
		h.transport.CloseIdleConnections()
	}
}

// names reports whether the configuration names the host: it may have the credential.
func (r *registry) names(name string) bool {
	return slices.ContainsFunc(r.hosts, func(h *host) bool { return h.host == name })
}

// hostNames is for messages: where a request went.
func (r *registry) hostNames() string {
	var names []string
	for _, h := range r.hosts {
		names = append(names, h.host)
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}

// turn says how a host is asked.
type turn struct {
	limit time.Duration // for an answer to begin
	last  bool          // no other is asked after it
}

// each asks the hosts that may until one does what is wanted. Those that were not to be reached a short while ago
// come last. A host has little time while another can be asked; if none has the thing, those that were only too
// slow get all the time there is, once in a pull.
func (r *registry) each(ctx context.Context, may func(*host) bool, want func(*host, turn) error) error {
	order := slices.DeleteFunc(slices.Clone(r.hosts), func(h *host) bool { return !may(h) })
	if len(order) == 0 {
		return fmt.Errorf("no host is configured for this: %w", errdefs.ErrNotFound)
	}
	well := func(h *host) bool { return !r.store.hosts.sick(h.key()) }
	slices.SortStableFunc(order, func(a, b *host) int { return rank(well(b)) - rank(well(a)) })
	var failures []hostFailure
	var slow []*host
	patience := r.store.cfg.StallTimeout
	for i, h := range order {
		t := turn{limit: patience, last: i == len(order)-1}
		gaveUp, patient := h.patience()
		if gaveUp && !t.last {
			continue
		}
		if !t.last && !patient {
			t.limit = min(hurry, patience)
		}
		err := want(h, t)
		if err == nil || isFinal(ctx, err) {
			return err
		}
		failures = append(failures, hostFailure{h, err})
		if r.note(h, err); t.limit < patience && errors.As(err, new(*stallError)) {
			slow = append(slow, h)
		} else if errors.As(err, new(*stallError)) {
			h.setPatience(true, false)
		}
	}
	for _, h := range slow {
		err := want(h, turn{limit: patience, last: true})
		h.setPatience(err != nil, err == nil)
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

// note remembers a host that was not to be reached, for this pull and others.
func (r *registry) note(h *host, err error) {
	var status *statusError
	if isNetwork(err) || errors.As(err, new(*stallError)) || errors.As(err, &status) && status.code >= 500 {
		r.store.hosts.sicken(h.key())
	}
}

func (h *host) patience() (gaveUp, patient bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.gaveUp, h.patient
}

func (h *host) setPatience(gaveUp, patient bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gaveUp, h.patient = gaveUp, patient
}

// localError is a failure of this node; no other host can help.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// isFinal reports an error that asking another host would not mend.
func isFinal(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.As(err, new(*localError))
}

// hostFailure is why one host did not do what was wanted.
type hostFailure struct {
	host *host
	err  error
}

// hostFailures are those of all hosts. The one that says most decides about the class.
type hostFailures struct {
	text string
	err  error
}

func (e *hostFailures) Error() string { return e.text }
func (e *hostFailures) Unwrap() error { return e.err }

// worst puts first what says most: that there is no such thing says more than that a host is down, and less than
// that it may not be had.
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
