package image

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/pelletier/go-toml/v2"
)

// registry is the hosts that may have one reference, for the length of one pull.
type registry struct {
	store      *Store
	ref        reference
	auth       *Auth
	hosts      []docker.RegistryHost
	transports []*http.Transport
	resolver   remotes.Resolver
	fetcher    remotes.Fetcher
	progress   *progress
}

// connect reads the configuration of the reference's host; it makes no connection yet. The caller calls close.
func (s *Store) connect(ctx context.Context, ref reference, auth *Auth) (*registry, error) {
	if _, _, err := auth.login(); err != nil {
		return nil, err
	}
	r := &registry{store: s, ref: ref, auth: auth, progress: &progress{image: ref.String(), began: time.Now()}}
	if err := r.configure(ctx); err != nil {
		return nil, fmt.Errorf("registry configuration of %s: %s: %w", ref.host(), err.Error(), errdefs.ErrFailedPrecondition)
	}
	r.resolver = docker.NewResolver(docker.ResolverOptions{
		Hosts: func(string) ([]docker.RegistryHost, error) { return r.hosts, nil },
	})
	var err error
	if r.fetcher, err = r.resolver.Fetcher(ctx, ref.String()); err != nil {
		return nil, fmt.Errorf("image reference %s: %s: %w", ref, err.Error(), errdefs.ErrInvalidArgument)
	}
	return r, nil
}

func (r *registry) configure(ctx context.Context) error {
	options := config.HostOptions{
		Credentials: func(host string) (string, string, error) {
			if !r.auth.serves(host) {
				return "", "", nil
			}
			return r.auth.login()
		},
		UpdateClient: r.watch,
	}
	// containerd would try TLS first and fall back; a loopback registry without hosts.toml is plain at once.
	if docker.IsLocalhost(r.ref.host()) && !strings.HasSuffix(r.ref.host(), ":443") {
		options.DefaultScheme = "http"
	}
	if dir := r.store.cfg.RegistryConfigDir; dir != "" {
		options.HostDir = config.HostDirFromRoot(dir)
		if err := checkHostsFile(options.HostDir, r.ref.host()); err != nil {
			return err
		}
	}
	hosts, err := config.ConfigureHosts(ctx, options)(r.ref.host())
	if err != nil {
		return err
	}
	for i := range hosts {
		if r.auth != nil && r.auth.RegistryToken != "" && r.auth.serves(hosts[i].Host) {
			hosts[i].Authorizer = bearer{host: hosts[i].Host, token: r.auth.RegistryToken}
		}
	}
	r.hosts = hosts
	return nil
}

// watch is called for each client that is made: it gives the client the stall timeout, and itself the connections
// to close at the end.
func (r *registry) watch(client *http.Client) error {
	t, ok := client.Transport.(*http.Transport)
	if !ok {
		return fmt.Errorf("unexpected transport %T", client.Transport)
	}
	t.ResponseHeaderTimeout = 0
	r.transports = append(r.transports, t)
	client.Transport = &stallTransport{base: t, stall: r.store.cfg.StallTimeout}
	return nil
}

func (r *registry) close() {
	for _, t := range r.transports {
		t.CloseIdleConnections()
	}
}

// checkHostsFile refuses a hosts.toml that is no TOML. containerd's reader would go on without it, and so past the
// mirror the file asks for.
func checkHostsFile(find func(string) (string, error), host string) error {
	dir, err := find(host)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "hosts.toml")
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var any map[string]any
	if err := toml.Unmarshal(data, &any); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// hostNames is for messages: where a request went.
func (r *registry) hostNames() string {
	var names []string
	for _, h := range r.hosts {
		names = append(names, h.Host)
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}

// resolve asks what the reference names.
func (r *registry) resolve(ctx context.Context) (ocispec.Descriptor, error) {
	_, desc, err := r.resolver.Resolve(ctx, r.ref.String())
	if err != nil {
		return desc, r.failure(fmt.Sprintf("look up at %s", r.hostNames()), err)
	}
	if err := validDigest(desc.Digest); err != nil {
		return desc, fmt.Errorf("%s answers with %w: %w", r.hostNames(), err, errdefs.ErrFailedPrecondition)
	}
	return desc, nil
}

// bearer sends a token as it is, to one host only.
type bearer struct{ host, token string }

func (b bearer) Authorize(_ context.Context, req *http.Request) error {
	if req.URL.Host == b.host {
		req.Header.Set("Authorization", "Bearer "+b.token)
	}
	return nil
}

func (b bearer) AddResponses(context.Context, []*http.Response) error {
	return fmt.Errorf("registry token was refused: %w", errdefs.ErrNotImplemented)
}
