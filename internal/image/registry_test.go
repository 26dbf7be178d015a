package image_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/image/registry"
)

var zeroTime time.Time

const password = "s3cr3t-Pa55word"

var basic = base64.StdEncoding.EncodeToString([]byte("alice:" + password))

// guard accepts only alice. It answers all others with what they sent.
func guard(h *hub) {
	h.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "Basic "+basic {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="hub"`)
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = fmt.Fprintf(w, `{"errors":[{"code":"UNAUTHORIZED","message":"you sent %s"}]}`, r.Header.Get("Authorization"))
		return true
	})
}

func TestCredentialsOpenTheRegistry(t *testing.T) {
	h := newHub(t)
	ref := h.push(t, "app:1", imageOf(t, "a", layerOf(t, reg("a", ""))))
	guard(h)
	for name, auth := range map[string]*registry.Auth{
		"user and password":    {Username: "alice", Password: password},
		"base64":               {Auth: basic},
		"for this server only": {Auth: basic, ServerAddress: "http://" + h.host() + "/v2/"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := open(t, image.Config{}).Pull(t.Context(), ref, auth)
			must(t, err)
		})
	}
}

func TestRefusedCredentialsAreNeverShown(t *testing.T) {
	h := newHub(t)
	ref := h.push(t, "app:1", imageOf(t, "a", layerOf(t, reg("a", ""))))
	guard(h)
	wrong := "Wr0ng-" + password
	for name, auth := range map[string]*registry.Auth{
		"none":           nil,
		"wrong password": {Username: "alice", Password: wrong},
		"wrong base64":   {Auth: base64.StdEncoding.EncodeToString([]byte("bob:" + wrong))},
		"token":          {RegistryToken: wrong},
		"identity token": {IdentityToken: wrong},
		"other server":   {Username: "alice", Password: password, ServerAddress: "registry.example"},
	} {
		t.Run(name, func(t *testing.T) {
			text, log := newLog()
			_, err := open(t, image.Config{Log: log}).Pull(t.Context(), ref, auth)
			expectError(t, err, errdefs.IsUnauthorized, ref, h.host())
			for _, secret := range []string{
				password, wrong, base64.StdEncoding.EncodeToString([]byte("alice:" + wrong)),
				base64.StdEncoding.EncodeToString([]byte("bob:" + wrong)),
			} {
				if strings.Contains(err.Error()+text.String(), secret) {
					t.Errorf("shows %q: %v\n%s", secret, err, text)
				}
			}
		})
	}
}

func TestForbiddenIsPermissionDeniedEvenIfTheRegistryRepeatsTheCredential(t *testing.T) {
	h := newHub(t)
	h.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		sent := r.Header.Get("Authorization")
		w.Header().Set("WWW-Authenticate", `Basic realm="hub"`)
		if sent == "" {
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		w.WriteHeader(http.StatusForbidden)
		_, _ = fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":"no entry for %s, http://h/x?sig=%s"}]}`, sent, password)
		return true
	})
	for _, auth := range []*registry.Auth{{Username: "alice", Password: password}, {RegistryToken: password}} {
		text, log := newLog()
		_, err := open(t, image.Config{Log: log}).Pull(t.Context(), h.host()+"/a:1", auth)
		expectError(t, err, errdefs.IsPermissionDenied, h.host(), "no entry", "[redacted]")
		if shown := err.Error() + text.String(); strings.Contains(shown, password) || strings.Contains(shown, basic) {
			t.Error(shown)
		}
	}
}

func TestRegistryTokenIsSentAsItIs(t *testing.T) {
	h := newHub(t)
	ref := h.push(t, "app:1", imageOf(t, "a", layerOf(t, reg("a", ""))))
	h.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "Bearer tok" {
			return false
		}
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	_, err := open(t, image.Config{}).Pull(t.Context(), ref, &registry.Auth{RegistryToken: "tok"})
	must(t, err)
}

func TestMissingImageNamesReferenceAndHost(t *testing.T) {
	h := newHub(t)
	s := open(t, image.Config{})
	for _, ref := range []string{h.host() + "/none:1", h.host() + "/none@" + someDigest} {
		_, err := s.Pull(t.Context(), ref, nil)
		expectError(t, err, errdefs.IsNotFound, ref, "look up at "+h.host())
	}
}

func TestRegistryThatIsDownIsUnavailable(t *testing.T) {
	h := newHub(t)
	ref := h.host() + "/a:1"
	h.Close()
	_, err := open(t, image.Config{}).Pull(t.Context(), ref, nil)
	expectError(t, err, errdefs.IsUnavailable, ref, "connection refused")
	h = newHub(t)
	h.setFault(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusBadGateway); return true })
	_, err = open(t, image.Config{}).Pull(t.Context(), h.host()+"/a:1", nil)
	expectError(t, err, errdefs.IsUnavailable, "502")
}

func hostsFile(t *testing.T, host, text string) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, host), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, host, "hosts.toml"), []byte(text), 0o644))
	return dir
}

func TestMirrorOfHostsFileIsUsed(t *testing.T) {
	h := newHub(t)
	h.push(t, "team/app:1", imageOf(t, "a", layerOf(t, reg("a", ""))))
	dead := newHub(t)
	dead.Close()
	cfg := hostsFile(t, "registry.example", fmt.Sprintf(`
server = "http://%s"
[host."http://%s"]
  capabilities = ["pull", "resolve"]
[host."http://%s"]
  capabilities = ["pull", "resolve"]
`, dead.host(), dead.host(), h.host()))
	s := open(t, image.Config{RegistryConfigDir: cfg})
	img := pull(t, s, "registry.example/team/app:1")
	equal(t, "tags", sprint(img.Tags), "[registry.example/team/app:1]")
	_, err := s.Pull(t.Context(), "registry.example/team/app:2", nil)
	expectError(t, err, func(error) bool { return true }, h.host(), dead.host())
}

func TestBrokenHostsFileIsNotIgnored(t *testing.T) {
	cfg := hostsFile(t, "registry.example", `[host."http://`)
	_, err := open(t, image.Config{RegistryConfigDir: cfg}).Pull(t.Context(), "registry.example/a", nil)
	expectError(t, err, errdefs.IsFailedPrecondition, "registry.example/hosts.toml")
}

func TestMissingRegistryConfigurationIsFine(t *testing.T) {
	h := newHub(t)
	ref := h.push(t, "app:1", imageOf(t, "a", layerOf(t, reg("a", ""))))
	pull(t, open(t, image.Config{RegistryConfigDir: "/does/not/exist"}), ref)
}
