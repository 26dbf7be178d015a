package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/image/reference"
	"github.com/pinfold-run/pinfold/internal/regular"
)

const (
	// maxAuthFile is the largest file of credentials that is read, in bytes.
	maxAuthFile = 1 << 20
	// maxPassword is the longest password, in bytes.
	maxPassword = 64 << 10
)

// credentials returns what the registry of an image is to get; nil for nothing. No error shows any of it.
func (t *tool) credentials(ctx context.Context, o *pullOptions, image string) (*runtimeapi.AuthConfig, error) {
	if o.creds != "" {
		name, password, given := strings.Cut(o.creds, ":")
		if name == "" {
			return nil, misuse("--creds: want USER or USER:PASSWORD")
		}
		if !given {
			var err error
			if password, err = t.readPassword(ctx, name); err != nil {
				return nil, err
			}
		}
		if checkText(name+password) != nil {
			return nil, misuse("--creds: user and password have to be text in UTF-8")
		}
		return forRegistry(&runtimeapi.AuthConfig{Username: name, Password: password}, image), nil
	}
	file := o.authFile
	if file == "" {
		file = os.Getenv("REGISTRY_AUTH_FILE")
	}
	if file == "" {
		return nil, nil
	}
	full, err := reference.Normalize(image)
	if err != nil {
		return nil, nil // an ID, or no name: the daemon says so
	}
	data, err := regular.Read(file, maxAuthFile)
	if err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	auth, err := findCredentials(data, full)
	if err != nil {
		return nil, fmt.Errorf("credentials: %s: %w", file, err)
	}
	return forRegistry(auth, image), nil
}

// forRegistry says that a credential is for an image's own registry, and for no mirror of it.
func forRegistry(auth *runtimeapi.AuthConfig, image string) *runtimeapi.AuthConfig {
	full, err := reference.Normalize(image)
	if auth == nil || err != nil {
		return auth
	}
	auth.ServerAddress, _, _ = strings.Cut(full, "/")
	return auth
}

// readPassword asks for a password on a terminal, or reads one line from standard input.
func (t *tool) readPassword(ctx context.Context, name string) (string, error) {
	fd := int(t.in.Fd())
	state, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err == nil {
		silent := *state
		silent.Lflag &^= unix.ECHO
		silent.Lflag |= unix.ICANON | unix.ISIG
		if err := unix.IoctlSetTermios(fd, unix.TCSETSF, &silent); err != nil {
			return "", fmt.Errorf("ask for the password: %w", err)
		}
		defer func() {
			_ = unix.IoctlSetTermios(fd, unix.TCSETS, state)
			fmt.Fprintln(t.errs)
		}()
		fmt.Fprintf(t.errs, "Password of %s: ", visible(name))
	}
	type answer struct {
		text string
		err  error
	}
	got := make(chan answer, 1)
	go func() { // ends with the process if the command is interrupted
		text, err := bufio.NewReader(io.LimitReader(t.in, maxPassword)).ReadString('\n')
		if errors.Is(err, io.EOF) && text != "" {
			err = nil
		}
		got <- answer{strings.TrimRight(text, "\r\n"), err}
	}()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case a := <-got:
		if a.err != nil || a.text == "" {
			return "", errors.New("no password on standard input")
		}
		return a.text, nil
	}
}

// storedCredential is one entry of Docker's config.json.
type storedCredential struct {
	Auth          string `json:"auth"`
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
}

// findCredentials finds the entry of an image's repository, or of the longest part of its path, or of its
// registry.
func findCredentials(data []byte, image string) (*runtimeapi.AuthConfig, error) {
	var config struct {
		Auths map[string]storedCredential `json:"auths"`
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return nil, errors.New("not JSON in the form of Docker's config.json")
	}
	stored := map[string]storedCredential{}
	for key, c := range config.Auths {
		stored[registryKey(key)] = c
	}
	place, _, _ := strings.Cut(image, "@")
	if i := strings.LastIndexByte(place, ':'); i > strings.LastIndexByte(place, '/') {
		place = place[:i]
	}
	for {
		if c, ok := stored[place]; ok {
			return c.auth()
		}
		i := strings.LastIndexByte(place, '/')
		if i < 0 {
			return nil, nil
		}
		place = place[:i]
	}
}

// registryKey is the registry of an entry, without what docker login writes around it.
func registryKey(key string) string {
	if _, rest, ok := strings.Cut(key, "://"); ok {
		key = rest
	}
	key = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(key, "/"), "/v1"), "/v2")
	if key == "index.docker.io" || key == "registry-1.docker.io" {
		return "docker.io"
	}
	return key
}

func (c storedCredential) auth() (*runtimeapi.AuthConfig, error) {
	a := &runtimeapi.AuthConfig{Username: c.Username, Password: c.Password, IdentityToken: c.IdentityToken}
	if c.Auth != "" {
		text, err := base64.StdEncoding.DecodeString(c.Auth)
		name, password, ok := strings.Cut(strings.TrimRight(string(text), "\x00"), ":")
		if err != nil || !ok || checkText(name+password) != nil {
			return nil, errors.New("an entry is not USER:PASSWORD in base64")
		}
		a.Username, a.Password = name, password
	}
	if a.Username == "" && a.IdentityToken == "" {
		return nil, nil // kept by a helper, which is not called
	}
	return a, nil
}
