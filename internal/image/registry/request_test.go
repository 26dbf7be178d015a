package registry

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

func TestChallengesAreSeparated(t *testing.T) {
	for field, want := range map[string][]string{
		`Basic realm="x"`: {`Basic realm="x"`},
		`Bearer realm="https://t/",service="r",scope="repository:a:pull,push"`: {`Bearer realm="https://t/",service="r",scope="repository:a:pull,push"`},
		`Basic realm="x", Bearer realm="y", service="z"`:                       {`Basic realm="x"`, `Bearer realm="y",service="z"`},
		`Negotiate, Basic realm="a \", b"`:                                     {`Negotiate`, `Basic realm="a \", b"`},
		` , Basic realm = "x" ,, `:                                             {`Basic realm = "x"`},
	} {
		if got := challenges([]string{field}); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", field, got, want)
		}
	}
}

func TestRetryAfterIsSecondsOrADate(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"5": 5 * time.Second, "0": 0, "999999999": 24 * time.Hour, "": -1, "-3": -1, "soon": -1,
		"Mon, 02 Jan 2006 15:04:05 GMT": 0,
	} {
		if got := retryAfter(text); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
	at := time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)
	if got := retryAfter(at); got < 59*time.Minute || got > time.Hour {
		t.Errorf("in an hour: %v", got)
	}
}

func TestTheFailureThatSaysMostDecides(t *testing.T) {
	failed := func(name string, err error) hostFailure {
		return hostFailure{&host{hostConfig: hostConfig{host: name}}, err}
	}
	down := failed("down", fmt.Errorf("connect: %w", io.ErrUnexpectedEOF))
	missing := failed("missing", &statusError{code: http.StatusNotFound})
	refuses := failed("refuses", &statusError{code: http.StatusForbidden})
	wrong := failed("wrong", &contentError{"other bytes"})
	for _, c := range []struct {
		failures []hostFailure
		is       func(error) bool
		first    string
	}{
		{[]hostFailure{down, missing}, errdefs.IsNotFound, "missing"},
		{[]hostFailure{down, wrong, missing}, errdefs.IsDataLoss, "wrong"},
		{[]hostFailure{missing, down, refuses}, errdefs.IsPermissionDenied, "refuses"},
	} {
		err := worst(c.failures)
		if !c.is(classOf(err)) || !strings.HasPrefix(err.Error(), c.first+": ") {
			t.Errorf("%v: %v", classOf(err), err)
		}
		for _, f := range c.failures {
			if !strings.Contains(err.Error(), f.host.host) {
				t.Errorf("%v does not name %s", err, f.host.host)
			}
		}
	}
	if err := worst([]hostFailure{down}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("of one: %v", err)
	}
}

func TestEveryStatusHasAClass(t *testing.T) {
	for code, is := range map[int]func(error) bool{
		401: errdefs.IsUnauthorized, 403: errdefs.IsPermissionDenied, 404: errdefs.IsNotFound, 416: errdefs.IsDataLoss,
		408: errdefs.IsUnavailable, 429: errdefs.IsUnavailable, 500: errdefs.IsUnavailable, 503: errdefs.IsUnavailable,
		400: errdefs.IsFailedPrecondition, 405: errdefs.IsFailedPrecondition,
	} {
		if class := classOf(fmt.Errorf("ask: %w", &statusError{code: code})); !is(class) {
			t.Errorf("%d: %v", code, class)
		}
	}
}
