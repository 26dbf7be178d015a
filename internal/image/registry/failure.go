package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/image/secret"
)

// ErrUnavailable is the class of a pull whose registry could not be reached, or could not
// answer. It is an errdefs.ErrUnavailable.
var ErrUnavailable = fmt.Errorf("registry %w", errdefs.ErrUnavailable)

// failure makes an error of a failed exchange with the registry: step, cause, class. The cause is
// kept as text only, without credentials: a registry may repeat what it was sent, and the URL of a
// redirect is signed.
func (r *Repository) failure(step string, err error) error {
	class := classOf(err)
	text := strings.TrimSuffix(secret.Shorten(secret.Scrub(err.Error(), r.secrets.All())), ": "+class.Error())
	if text == class.Error() {
		return fmt.Errorf("%s: %w", step, class)
	}
	return fmt.Errorf("%s: %s: %w", step, text, class)
}

// classOf returns the class of a registry's failure.
func classOf(err error) error {
	var status *statusError
	var ofTokens remoteerrors.ErrUnexpectedStatus
	switch {
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return context.DeadlineExceeded
	case errors.Is(err, docker.ErrInvalidAuthorization):
		return errdefs.ErrUnauthenticated
	case errors.As(err, &status):
		return classOfStatus(status.code)
	case errors.As(err, &ofTokens):
		return classOfStatus(ofTokens.StatusCode)
	case errors.As(err, new(*contentError)):
		return errdefs.ErrDataLoss
	case errdefs.IsNotFound(err):
		return errdefs.ErrNotFound
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return errdefs.ErrResourceExhausted
	case errors.Is(err, errdefs.ErrFailedPrecondition):
		return errdefs.ErrFailedPrecondition
	case isNetwork(err), errors.As(err, new(*stallError)), errdefs.IsUnavailable(err):
		return ErrUnavailable
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
	case code == http.StatusRequestedRangeNotSatisfiable: // the blob is shorter than its manifest says
		return errdefs.ErrDataLoss
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code >= 500:
		return ErrUnavailable
	}
	return errdefs.ErrFailedPrecondition
}

func isNetwork(err error) bool {
	var op *net.OpError
	var at *url.Error
	return errors.As(err, &op) || errors.As(err, &at) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)
}
