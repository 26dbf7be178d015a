package image_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/image/registry"
)

// tokenHub is a registry that needs tokens, and their token server. Tokens of an older series are
// invalid.
type tokenHub struct {
	*hub
	// challenge is its answer to a request without a valid token; %s is its URL.
	challenge []string
	// token answers requests for tokens; if nil, a default does.
	token http.HandlerFunc

	mu     sync.Mutex
	series int
}

func newTokenHub(t *testing.T, challenge ...string) *tokenHub {
	t.Helper()
	h := &tokenHub{hub: newHub(t), challenge: challenge}
	h.setFault(h.guard)
	return h
}

func (h *tokenHub) current() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return fmt.Sprintf("token-of-series-%d", h.series)
}

// expire makes all earlier tokens invalid.
func (h *tokenHub) expire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.series++
}

func (h *tokenHub) guard(w http.ResponseWriter, r *http.Request) bool {
	switch {
	case r.URL.Path == "/token" && h.token != nil:
		h.token(w, r)
	case r.URL.Path == "/token":
		h.give(w, r)
	case r.Header.Get("Authorization") != "Bearer "+h.current():
		for _, c := range h.challenge {
			w.Header().Add("WWW-Authenticate", strings.ReplaceAll(c, "%s", h.URL))
		}
		w.WriteHeader(http.StatusUnauthorized)
	default:
		return false
	}
	return true
}

func (h *tokenHub) give(w http.ResponseWriter, _ *http.Request) {
	_, _ = fmt.Fprintf(w, `{"access_token":%q}`, h.current())
}

const bearerChallenge = `Bearer realm="%s/token",service="hub",scope="repository:app:pull"`

func pushTokens(t *testing.T, h *tokenHub) string {
	t.Helper()
	h.setFault(nil)
	ref := h.push(t, "app:1", imageOf(t, "a", layerOf(t, reg("a", "a")), layerOf(t, reg("b", "b")), layerOf(t, reg("c", "c"))))
	h.setFault(h.guard)
	return ref
}

// Registries call an expired token invalid, or only repeat their challenge.
func TestATokenThatExpiresDuringAPullIsReplaced(t *testing.T) {
	for name, challenge := range map[string]string{
		"said":                    bearerChallenge + `,error="invalid_token"`,
		"said as a lack of scope": bearerChallenge + `,error="insufficient_scope"`,
		"not said":                bearerChallenge,
	} {
		for user, auth := range map[string]*registry.Auth{"anonymous": nil, "alice": {Auth: basic}} {
			t.Run(name+" to "+user, func(t *testing.T) {
				h := newTokenHub(t, challenge)
				ref := pushTokens(t, h)
				var once sync.Once
				h.setFault(func(w http.ResponseWriter, r *http.Request) bool {
					if strings.Contains(r.URL.Path, "/blobs/") {
						once.Do(h.expire)
					}
					return h.guard(w, r)
				})
				_, err := open(t, image.Config{}).Pull(t.Context(), ref, auth)
				must(t, err)
			})
		}
	}
}

func TestACredentialThatIsRefusedIsNotTriedForEver(t *testing.T) {
	for name, challenge := range map[string]string{
		"with a reason": bearerChallenge + `,error="insufficient_scope"`,
		"without one":   bearerChallenge,
	} {
		t.Run(name, func(t *testing.T) {
			h := newTokenHub(t, challenge)
			ref := pushTokens(t, h)
			h.token = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"access_token":"worthless"}`)) }
			_, err := open(t, image.Config{}).Pull(t.Context(), ref, &registry.Auth{Auth: basic})
			expectError(t, err, errdefs.IsUnauthorized)
			if n := h.count("HEAD ") + h.count("GET ") + h.count("POST "); n > 10 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// A proxy may join header fields with the same name (RFC 9110, 5.3).
func TestChallengesAreUnderstoodHoweverTheyAreWritten(t *testing.T) {
	for name, challenge := range map[string][]string{
		"another scheme first":          {"Negotiate", bearerChallenge},
		"another scheme last":           {bearerChallenge, "Negotiate"},
		"Basic besides":                 {`Basic realm="x, y"`, bearerChallenge},
		"one list":                      {`Negotiate, ` + bearerChallenge + `, Basic realm="hub"`},
		"one list with parameters":      {`Digest realm="a, Bearer b", nonce="x", qop="auth,auth-int", ` + bearerChallenge},
		"a list that begins with Basic": {`Basic realm="hub", ` + bearerChallenge},
		"capitals":                      {strings.Replace(bearerChallenge, "Bearer realm", "BEARER Realm", 1)},
		"spaces":                        {strings.ReplaceAll(bearerChallenge, `",`, `" , `)},
		"a token68 of another scheme":   {"Negotiate YIIabc==, " + bearerChallenge},
	} {
		t.Run(name, func(t *testing.T) {
			h := newTokenHub(t, challenge...)
			_, err := open(t, image.Config{}).Pull(t.Context(), pushTokens(t, h), nil)
			must(t, err)
		})
	}
}

func TestABusyTokenServerIsLeftAloneForAsLongAsItSays(t *testing.T) {
	for name, auth := range map[string]*registry.Auth{"anonymous": nil, "alice": {Auth: basic}} {
		for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
			t.Run(fmt.Sprint(name, " ", status), func(t *testing.T) {
				h := newTokenHub(t, bearerChallenge)
				ref := pushTokens(t, h)
				var times []time.Time
				h.token = func(w http.ResponseWriter, r *http.Request) {
					if times = append(times, time.Now()); len(times) > 1 {
						h.give(w, r)
						return
					}
					w.Header().Set("Retry-After", "1")
					w.WriteHeader(status)
				}
				_, err := open(t, image.Config{}).Pull(t.Context(), ref, auth)
				must(t, err)
				if pause := times[1].Sub(times[0]); pause < 900*time.Millisecond {
					t.Errorf("asked again after %v", pause)
				}
			})
		}
	}
}

func TestATokenServerThatFailsOnceIsAskedAgain(t *testing.T) {
	h := newTokenHub(t, bearerChallenge)
	ref := pushTokens(t, h)
	n := 0
	h.token = func(w http.ResponseWriter, r *http.Request) {
		if n++; n == 1 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		h.give(w, r)
	}
	pull(t, open(t, image.Config{}), ref)
}

// The headers in hosts.toml for a server go to the token server that it names, and not further.
func TestARedirectOfATokenServerGetsNeitherHeadersNorQuery(t *testing.T) {
	var got http.Header
	h := newTokenHub(t, bearerChallenge)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Clone()
		h.give(w, r)
	}))
	t.Cleanup(elsewhere.Close)
	pushTokens(t, h)
	h.token = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Private") == "" {
			t.Error("the token server has not got the header")
		}
		http.Redirect(w, r, elsewhere.URL, http.StatusFound)
	}
	dir := hostFiles(t, map[string]string{"registry.invalid/hosts.toml": "[host.\"" + h.URL + "\".header]\nX-Private = \"" + password + "\""})
	_, err := open(t, image.Config{RegistryConfigDir: dir}).Pull(t.Context(), "registry.invalid/app:1", nil)
	must(t, err)
	for _, name := range []string{"X-Private", "Referer"} {
		if got.Get(name) != "" {
			t.Errorf("%s went elsewhere: %q", name, got.Get(name))
		}
	}
}
