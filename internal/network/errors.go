package network

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
)

// classedError has a class of errdefs, and does not repeat the name of the class in its text.
type classedError struct {
	text  string
	class error
}

func (e *classedError) Error() string { return e.text }
func (e *classedError) Unwrap() error { return e.class }

func classed(class error, format string, args ...any) error {
	if len(args) > 0 {
		format = fmt.Sprintf(format, args...)
	}
	return &classedError{text: format, class: class}
}

// pluginError is the failure of one plugin process. Its text does not name verb, network and sandbox; [call.wrap] adds
// them.
type pluginError struct {
	plugin string // the binary's name
	text   string
	code   uint // the plugin's own error code, 0 if there is none
	class  error
}

func (e *pluginError) Error() string { return "plugin " + e.plugin + " " + e.text }
func (e *pluginError) Unwrap() error { return e.class }

// saidError is the error of a plugin that said what is wrong.
func saidError(plugin string, said *types.Error) error {
	text := "failed: " + said.Error()
	if said.Code != 0 {
		text += fmt.Sprintf(" (CNI error code %d)", said.Code)
	}
	return &pluginError{plugin: plugin, text: text, code: said.Code, class: classOf(said.Code)}
}

// classOf is the class of an error code of the CNI specification: ErrFailedPrecondition if the configuration has to be
// changed, otherwise ErrUnavailable, because a later try may succeed.
func classOf(code uint) error {
	switch code {
	case types.ErrIncompatibleCNIVersion, types.ErrUnsupportedField,
		types.ErrDecodingFailure, types.ErrInvalidNetworkConfig:
		return errdefs.ErrFailedPrecondition
	default:
		return errdefs.ErrUnavailable
	}
}

// call names a series of plugin runs in error texts.
type call struct {
	verb    string
	network string
	sandbox string // "" for STATUS and GC
}

func (c call) String() string {
	s := fmt.Sprintf("CNI %s on network %q", c.verb, c.network)
	if c.sandbox != "" {
		s += " for sandbox " + c.sandbox
	}
	return s
}

// wrap adds step and object to an error of libcni. libcni's own text around a plugin's error says the same, so it is left
// out.
func (c call) wrap(err error) error {
	var pe *pluginError
	if errors.As(err, &pe) {
		return fmt.Errorf("%s: %w", c, pe)
	}
	return fmt.Errorf("%s: %w", c, err)
}

// interrupted is the error of a plugin that was killed because ctx ended.
func interrupted(ctx context.Context, plugin string, started time.Time, ended []string) error {
	seconds := time.Since(started).Seconds()
	text := fmt.Sprintf("had not answered after %.1f seconds", seconds)
	class := ctx.Err()
	if errors.Is(class, context.Canceled) {
		text = fmt.Sprintf("was still running when the request was cancelled after %.1f seconds", seconds)
	}
	text += " and was ended"
	if len(ended) > 0 {
		text += fmt.Sprintf(" (processes: %s)", cgroup.Brief(ended))
	}
	return &pluginError{plugin: plugin, text: text, class: class}
}
