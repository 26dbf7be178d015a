package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
)

// maxErrorText cuts what a registry has to say.
const maxErrorText = 600

// ErrRegistryUnavailable is the class of a pull whose registry was not to be reached, or could not answer. It is
// an errdefs.ErrUnavailable.
var ErrRegistryUnavailable = fmt.Errorf("registry %w", errdefs.ErrUnavailable)

// failure makes an error of what went wrong between us and the registry: step, cause, class. The cause is kept as
// text only, without credentials: a registry may answer with what it was sent, and a redirect's URL is signed.
func (r *registry) failure(step string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: %w", step, err)
	}
	var stall *stallError
	if errors.As(err, &stall) {
		return fmt.Errorf("%s: %w: %w", step, stall, ErrRegistryUnavailable)
	}
	class := classOf(err)
	text := strings.TrimSuffix(r.scrub(err.Error()), ": "+class.Error())
	return fmt.Errorf("%s: %s: %w", step, text, class)
}

// classOf finds the errdefs class of an error of the registry client.
func classOf(err error) error {
	var status remoteerrors.ErrUnexpectedStatus
	switch {
	case errors.Is(err, docker.ErrInvalidAuthorization):
		return errdefs.ErrUnauthenticated
	case errors.As(err, &status):
		return classOfStatus(status.StatusCode)
	case errdefs.IsNotFound(err):
		return errdefs.ErrNotFound
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return errdefs.ErrResourceExhausted
	case isNetwork(err):
		return ErrRegistryUnavailable
	case errdefs.IsFailedPrecondition(err):
		return errdefs.ErrDataLoss // the content store's word for a size or digest that is not what was asked for
	}
	return errdefs.ErrUnknown
}

func classOfStatus(code int) error {
	switch {
	case code == http.StatusUnauthorized:
		return errdefs.ErrUnauthenticated
	case code == http.StatusForbidden:
		return errdefs.ErrPermissionDenied
	case code == http.StatusNotFound:
		return errdefs.ErrNotFound
	case code == http.StatusRequestedRangeNotSatisfiable: // a blob shorter than its manifest says
		return errdefs.ErrDataLoss
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code >= 500:
		return ErrRegistryUnavailable
	}
	return errdefs.ErrFailedPrecondition
}

func isNetwork(err error) bool {
	var op *net.OpError
	var at *url.Error
	return errors.As(err, &op) || errors.As(err, &at) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)
}

var (
	urlQuery = regexp.MustCompile(`(https?://[^\s"?]+)\?[^\s"]*`)
	urlUser  = regexp.MustCompile(`(https?://)[^\s"/@]+@`)
)

// scrub removes credentials: ours, and those in URLs.
func (r *registry) scrub(text string) string {
	for _, secret := range r.auth.secrets() {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "[redacted]")
		}
	}
	text = strings.ReplaceAll(text, "\n", "; ")
	text = urlUser.ReplaceAllString(text, "$1")
	text = urlQuery.ReplaceAllString(text, "$1")
	if len(text) > maxErrorText {
		text = strings.ToValidUTF8(text[:maxErrorText], "") + "…"
	}
	return text
}
