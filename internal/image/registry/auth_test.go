package registry

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

const password = "s3cr3t-s3cr3t"

func TestAuthPrintsNothingOfItself(t *testing.T) {
	basic := base64.StdEncoding.EncodeToString([]byte("alice:" + password))
	a := Auth{Username: "alice", Password: password, Auth: basic, RegistryToken: password}
	var text bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Info("pull", "auth", a, "pointer", &a, slog.Group("g", "auth", a))
	shown := fmt.Sprintf("%v %+v %#v %s %v %+v", a, a, a, a, &a, &a) + text.String()
	if strings.Contains(shown, password) || strings.Contains(shown, "alice") {
		t.Error(shown)
	}
}

func TestALoginIsFoundInEachFormOfACredential(t *testing.T) {
	basic := base64.StdEncoding.EncodeToString([]byte("alice:" + password))
	for name, c := range map[string]struct {
		auth         *Auth
		user, secret string
	}{
		"none":      {nil, "", ""},
		"user":      {&Auth{Username: "alice", Password: password}, "alice", password},
		"encoded":   {&Auth{Auth: basic}, "alice", password},
		"identity":  {&Auth{IdentityToken: password}, "", password},
		"user wins": {&Auth{Username: "alice", Password: password, Auth: "%%%"}, "alice", password},
	} {
		user, secret, err := c.auth.login()
		if err != nil || user != c.user || secret != c.secret {
			t.Errorf("%s: %q, %q, %v", name, user, secret, err)
		}
		if c.auth != nil && !slices.Contains(c.auth.secrets(), password) {
			t.Errorf("%s: its secrets are %q", name, c.auth.secrets())
		}
	}
	for _, auth := range []string{"%%%", base64.StdEncoding.EncodeToString([]byte("no colon"))} {
		if _, _, err := (&Auth{Auth: auth}).login(); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", auth, err)
		}
	}
}

func TestACredentialIsForItsHostOnly(t *testing.T) {
	for address, hosts := range map[string]map[string]bool{
		"":                            {"registry-1.docker.io": true, "r.example": true},
		"https://index.docker.io/v1/": {"registry-1.docker.io": true, "docker.io": true, "r.example": false},
		"r.example:5000":              {"r.example:5000": true, "R.example:5000": true, "r.example": false},
	} {
		for host, want := range hosts {
			if got := (&Auth{ServerAddress: address}).serves(host); got != want {
				t.Errorf("%q for %s: %v", address, host, got)
			}
		}
	}
	if (*Auth)(nil).serves("r.example") {
		t.Error("no credential serves a host")
	}
}
