package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/pinfold-run/pinfold/internal/regular"
)

const (
	defaultSocket = "/run/pinfold/pinfold.sock"
	crictlFile    = "/etc/crictl.yaml"
	// maxCrictlFile is the largest crictl.yaml that is read, in bytes.
	maxCrictlFile = 64 << 10
	// maxSocketPath is the longest path of a socket, see unix(7).
	maxSocketPath = 107
)

// endpoint is the socket of the daemon.
type endpoint struct {
	path string
	// from says who named it; empty for the default.
	from string
	// missing is the default socket that does not exist, if crictl's configuration stands in for it.
	missing string
}

// String names the socket and who named it.
func (e endpoint) String() string {
	if e.from == "" {
		return e.path
	}
	return e.path + " (from " + e.from + ")"
}

// places are where the socket is looked for, apart from the flag.
type places struct {
	env       func(string) string
	standard  string
	crictl    string
	isPresent func(path string) bool
}

func systemPlaces() places {
	return places{env: os.Getenv, standard: defaultSocket, crictl: crictlFile, isPresent: func(path string) bool {
		_, err := os.Lstat(path)
		return !os.IsNotExist(err)
	}}
}

// find returns the socket. given is the value of the flag; empty if it was not given.
//
// A node that had another runtime may still have its socket in crictl's configuration. So the
// standard socket comes before it.
func (p places) find(given string) (endpoint, error) {
	for _, named := range []struct{ value, from string }{
		{given, "--socket"},
		{p.env("PINFOLD_SOCKET"), "$PINFOLD_SOCKET"},
		{p.env("CONTAINER_RUNTIME_ENDPOINT"), "$CONTAINER_RUNTIME_ENDPOINT"},
	} {
		if named.value == "" {
			continue
		}
		path, err := socketPath(named.value)
		if err != nil {
			return endpoint{}, misuse("%s: %v", named.from, err)
		}
		return endpoint{path: path, from: named.from}, nil
	}
	if p.isPresent(p.standard) {
		return endpoint{path: p.standard}, nil
	}
	if path, err := socketPath(crictlEndpoint(p.crictl)); err == nil && path != p.standard && p.isPresent(path) {
		return endpoint{path: path, from: p.crictl, missing: p.standard}, nil
	}
	return endpoint{path: p.standard}, nil
}

// crictlEndpoint reads the socket from crictl's configuration. A file that cannot be read names none.
func crictlEndpoint(file string) string {
	data, err := regular.Read(file, maxCrictlFile)
	if err != nil {
		return ""
	}
	var config struct {
		Endpoint string `yaml:"runtime-endpoint"`
	}
	if err := yaml.Unmarshal(data, &config); err != nil {
		return ""
	}
	return config.Endpoint
}

// socketPath reads a path or a URL of the scheme unix.
func socketPath(text string) (string, error) {
	path := text
	if scheme, rest, ok := strings.Cut(text, "://"); ok {
		if scheme != "unix" {
			return "", fmt.Errorf("%q: only Unix sockets can be used, as a path or as unix:///path", text)
		}
		if path = rest; !strings.HasPrefix(path, "/") {
			return "", fmt.Errorf("%q: unix:// wants an absolute path, as in unix:///run/x.sock", text)
		}
	} else if rest, ok := strings.CutPrefix(text, "unix:"); ok {
		path = rest
	}
	if path == "" || strings.ContainsRune(path, 0) {
		return "", fmt.Errorf("%q is not the path of a socket", text)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if len(path) > maxSocketPath {
		return "", fmt.Errorf("%q: the path of a socket has at most %d bytes", text, maxSocketPath)
	}
	return path, nil
}
