package image_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/image/registry"
)

const signature = "X-Amz-Signature=fe5f80f77d5fa3beca038a248ff027d0445342fe2855ddc963176630326f1024"

// expectNoLeak fails if text has one of secrets.
func expectNoLeak(t *testing.T, text string, secrets ...string) {
	t.Helper()
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			t.Errorf("%q is shown: %s", secret, text)
		}
	}
}

func TestASignedRedirectThatFailsShowsNoSignatureWhateverThePassword(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":"bad https://%s%s"}]}`, r.Host, r.URL)
	}))
	t.Cleanup(broken.Close)
	for name, target := range map[string]string{
		"refused":    gone.URL + "/b?" + signature,
		"forbidden":  broken.URL + "/b?" + signature,
		"no URL":     "http://h:port/b?" + signature,
		"a quote":    gone.URL + `/b?q="x&` + signature,
		"a file":     "file:///etc/passwd?" + signature,
		"user":       "http://user:abc123deadbeef@" + strings.TrimPrefix(gone.URL, "http://") + "/?" + signature,
		"no host":    "http:///b?" + signature,
		"to nowhere": "/v2/b?" + signature,
	} {
		for _, password := range []string{"t", "h", "tt", "http", "://", "X-Amz-Signature"} {
			t.Run(name+" with password "+password, func(t *testing.T) {
				h := newHub(t)
				ref := h.push(t, "app:1", imageOf(t, "a", layerOf(t, reg("a", ""))))
				h.setFault(func(w http.ResponseWriter, r *http.Request) bool {
					if !strings.Contains(r.URL.Path, "/blobs/") && r.URL.Path != "/v2/b" {
						return false
					}
					w.Header().Set("Location", target)
					w.WriteHeader(http.StatusTemporaryRedirect)
					return true
				})
				text, log := newLog()
				_, err := open(t, image.Config{Log: log}).Pull(t.Context(), ref, &registry.Auth{Username: "u", Password: password})
				if err == nil {
					t.Fatal("no error")
				}
				expectNoLeak(t, err.Error()+text.String(), signature[16:], "abc123deadbeef")
			})
		}
	}
}

func TestATokenThatTheRegistryRepeatsIsNotShown(t *testing.T) {
	const token = "tok-3n.issued_by-the-server"
	h := newHub(t)
	h.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.URL.Path == "/token":
			_, _ = fmt.Fprintf(w, `{"token":%q}`, token)
		case r.Header.Get("Authorization") == "":
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token?x=y",service="s"`, r.Host))
			w.WriteHeader(http.StatusUnauthorized)
		default:
			w.WriteHeader(http.StatusForbidden)
			_, _ = fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":"not with %s"}]}`, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		}
		return true
	})
	text, log := newLog()
	_, err := open(t, image.Config{Log: log}).Pull(t.Context(), h.host()+"/app:1", nil)
	expectError(t, err, func(error) bool { return true }, "denied: not with [redacted]")
	expectNoLeak(t, err.Error()+text.String(), token)
}

func TestTheErrorsOfATokenServerShowNoCredential(t *testing.T) {
	h := newHub(t)
	h.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/token" {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://user:%s@%s/token?%s",service="s"`, password, r.Host, signature))
		}
		w.WriteHeader(http.StatusUnauthorized)
		_ = r.ParseForm()
		_, _ = fmt.Fprintf(w, `{"errors":[{"code":"X","message":"%s %s"}]}`, r.Form.Encode(), r.Header.Get("Authorization"))
		return true
	})
	for _, auth := range []*registry.Auth{{Username: "alice", Password: password}, {IdentityToken: password}} {
		text, log := newLog()
		_, err := open(t, image.Config{Log: log}).Pull(t.Context(), h.host()+"/app:1", auth)
		if err == nil {
			t.Fatal("no error")
		}
		t.Log(err)
		expectNoLeak(t, err.Error()+text.String(), password, basic, signature[16:])
	}
}

func TestAReferenceThatIsAURLIsRefusedWithoutItsPassword(t *testing.T) {
	s := open(t, image.Config{})
	for _, ref := range []string{
		"https://user:" + password + "@registry.example/app:1?" + signature, "http://h/app?token=" + password,
	} {
		_, err := s.Pull(t.Context(), ref, nil)
		if err == nil {
			t.Fatal("no error")
		}
		expectNoLeak(t, err.Error(), password, signature[16:])
		err = s.SetPinned(ref, true)
		expectNoLeak(t, err.Error(), password, signature[16:])
		if _, _, err = s.Hold(ref, "c"); err != nil {
			expectNoLeak(t, err.Error(), password, signature[16:])
		}
	}
}

func TestWhatAManifestSaysIsCleanedToo(t *testing.T) {
	h := newHub(t)
	h.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		_, _ = fmt.Fprintf(w, `{"schemaVersion":2,"config":{"mediaType":"%s https://h/?%s","size":1,"digest":"%s"},"layers":[]}`,
			strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), signature, someDigest)
		return true
	})
	_, err := open(t, image.Config{}).Pull(t.Context(), h.host()+"/app:1", &registry.Auth{RegistryToken: password})
	expectError(t, err, func(error) bool { return true }, "not a container image")
	expectNoLeak(t, err.Error(), password, signature[16:], base64.StdEncoding.EncodeToString([]byte(password)))
}

func TestALongAnswerIsCutAndHasNoControlCharacters(t *testing.T) {
	h := newHub(t)
	h.setFault(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusForbidden)
		_, _ = fmt.Fprintf(w, `{"errors":[{"code":"X","message":"\u001b[31m\r\n\u202e%s"}]}`, strings.Repeat("x", 10_000))
		return true
	})
	_, err := open(t, image.Config{}).Pull(t.Context(), h.host()+"/app:1", nil)
	if err == nil || len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\x1b\r\n\u202e") {
		t.Errorf("%q", err)
	}
}
