package main

import (
	"context"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCredentialsAreThoseOfTheLongestPartOfTheName(t *testing.T) {
	entry := func(user string) string {
		return `{"auth":"` + base64.StdEncoding.EncodeToString([]byte(user+":pass:word")) + `"}`
	}
	data := []byte(`{"credsStore":"x","auths":{
		"registry.example": ` + entry("host") + `, "registry.example/team": ` + entry("team") + `, "registry.example/team/app": ` + entry("app") + `,
		"https://index.docker.io/v1/": ` + entry("hub") + `, "http://plain.example:5000/v2/": ` + entry("plain") + `,
		"token.example": {"identitytoken":"t"}, "fields.example": {"username":"f","password":"p"}, "helper.example": {}}}`)
	for image, want := range map[string]string{
		"registry.example/x:1":        "host:pass:word",
		"registry.example/team/x:1":   "team:pass:word",
		"registry.example/team/app:1": "app:pass:word",
		"registry.example/team/app/deep@sha256:" + strings.Repeat("a", 64): "app:pass:word",
		"registry.example/teams/x:1":                                       "host:pass:word",
		"docker.io/library/busybox:latest":                                 "hub:pass:word",
		"plain.example:5000/x:1":                                           "plain:pass:word",
		"fields.example/x:1":                                               "f:p",
		"token.example/x:1":                                                ":",
	} {
		if got, err := findCredentials(data, image); err != nil || got.GetUsername()+":"+got.GetPassword() != want {
			t.Errorf("%s: %v %v, want %s", image, got, err, want)
		}
	}
	for _, image := range []string{"other.example/x:1", "plain.example/x:1", "helper.example/x:1", "example/x:1"} {
		if got, err := findCredentials(data, image); got != nil || err != nil {
			t.Errorf("%s: %v %v", image, got, err)
		}
	}
}

func TestAFileOfCredentialsThatIsDamagedIsAnErrorWithoutItsContent(t *testing.T) {
	for _, bad := range []string{"", "secret", `{"auths":{"a.example":"secret"}}`, `{"auths":{"a.example":{"auth":"secret!"}}}`, `{"auths":{"a.example":{"auth":"c2VjcmV0"}}}`, `{"auths":[]}`} {
		if got, err := findCredentials([]byte(bad), "a.example/x:1"); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v %v", bad, got, err)
		}
	}
	file := filepath.Join(t.TempDir(), "auth.json")
	if err := os.Mkdir(file, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := newTool().credentials(t.Context(), &pullOptions{authFile: file}, "a.example/x:1"); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a directory: %v", err)
	}
}

func TestAPasswordIsReadFromOneLineOfStandardInput(t *testing.T) {
	from := func(text string) (string, error) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		_, _ = w.WriteString(text)
		_ = w.Close()
		return (&tool{in: r}).readPassword(t.Context(), "user")
	}
	for text, want := range map[string]string{"secret\n": "secret", "secret": "secret", "a b\r\nrest": "a b"} {
		if got, err := from(text); err != nil || got != want {
			t.Errorf("%q: %q %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "\n"} {
		if got, err := from(bad); err == nil {
			t.Errorf("%q was taken as %q", bad, got)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (&tool{in: r}).readPassword(ctx, "user"); err == nil {
		t.Error("an interrupt did not end the question")
	}
}

func TestACredentialIsForTheImagesRegistryAlone(t *testing.T) {
	for image, want := range map[string]string{"busybox": "docker.io", "registry.example:5000/a/b:1": "registry.example:5000", "Not A Name": ""} {
		got, err := newTool().credentials(t.Context(), &pullOptions{creds: "user:pass:word"}, image)
		if err != nil || got.ServerAddress != want || got.Username != "user" || got.Password != "pass:word" {
			t.Errorf("%s: %v %v", image, got, err)
		}
	}
}

func FuzzAuthFile(f *testing.F) {
	f.Add([]byte(`{"auths":{"https://index.docker.io/v1/":{"auth":"dXNlcjpwYXNz"}}}`), "docker.io/library/busybox:latest")
	f.Add([]byte(`{"auths":{"a":{"identitytoken":"t"}}}`), "a/b@sha256:0")
	f.Fuzz(func(t *testing.T, data []byte, image string) {
		if a, err := findCredentials(data, image); a != nil && (err != nil || checkText(a.Username) != nil && a.Username == "") {
			t.Errorf("%v %v", a, err)
		}
	})
}
