package registry

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"strings"

	"github.com/containerd/errdefs"
)

// Auth is a credential for a registry, with CRI's fields. It is used for one pull and not kept.
// Printing or logging it does not show the secret.
type Auth struct {
	Username, Password string
	// Auth is "username:password" in base64, used when Username is empty.
	Auth string
	// IdentityToken is exchanged for an access token at the registry's token server.
	IdentityToken string
	// RegistryToken is sent to the registry as it is.
	RegistryToken string
	// ServerAddress restricts the credential to one registry host. Empty means every host that the
	// reference and hosts.toml name.
	ServerAddress string
}

// String hides the credential.
func (a Auth) String() string { return "[redacted]" }

// GoString hides the credential.
func (a Auth) GoString() string { return "registry.Auth{[redacted]}" }

// LogValue hides the credential.
func (a Auth) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// MarshalJSON hides the credential: an Auth is never stored.
func (a Auth) MarshalJSON() ([]byte, error) { return json.Marshal("[redacted]") }

// Fingerprint distinguishes credentials without keeping them.
func (a *Auth) Fingerprint() string {
	if a == nil {
		return ""
	}
	fields := strings.Join([]string{
		a.Username, a.Password, a.Auth, a.IdentityToken, a.RegistryToken, a.ServerAddress,
	}, "\x00")
	sum := sha256.Sum256([]byte(fields))
	return hex.EncodeToString(sum[:])
}

// login returns user and secret for containerd's authorizer; without a user, the secret is a token.
// ErrInvalidArgument if Auth cannot be decoded.
func (a *Auth) login() (user, secret string, err error) {
	switch {
	case a == nil:
		return "", "", nil
	case a.Username != "":
		return a.Username, a.Password, nil
	case a.IdentityToken != "":
		return "", a.IdentityToken, nil
	case a.Auth != "":
		raw, err := base64.StdEncoding.DecodeString(a.Auth)
		if err != nil {
			return "", "", fmt.Errorf("registry credential: auth is not base64: %w", errdefs.ErrInvalidArgument)
		}
		user, secret, found := strings.Cut(strings.TrimRight(string(raw), "\x00"), ":")
		if !found {
			return "", "", fmt.Errorf("registry credential: auth is not user:password: %w", errdefs.ErrInvalidArgument)
		}
		return user, secret, nil
	}
	return "", "", nil
}

// serves reports whether the credential may be sent to host.
func (a *Auth) serves(host string) bool {
	if a == nil {
		return false
	}
	if a.ServerAddress == "" {
		return true
	}
	return canonicalHost(a.ServerAddress) == canonicalHost(host)
}

// canonicalHost is the host and port of an address with or without scheme and path. Docker Hub has
// three names.
func canonicalHost(address string) string {
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	switch u.Host {
	case "docker.io", "index.docker.io":
		return "registry-1.docker.io"
	}
	return strings.ToLower(u.Host)
}

// secrets are the strings that must not be in any text.
func (a *Auth) secrets() []string {
	if a == nil {
		return nil
	}
	list := []string{a.Password, a.Auth, a.IdentityToken, a.RegistryToken}
	if user, secret, err := a.login(); err == nil && secret != "" {
		list = append(list, secret, base64.StdEncoding.EncodeToString([]byte(user+":"+secret)))
	}
	return list
}
