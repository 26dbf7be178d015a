// Package testregistry gives tests a real registry for images, which shares no code with what it tests. It runs in a
// process of its own (the command server, a module of its own), and only tests use it.
package testregistry

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
)

// Variable names the program of the registry where it is built already; without it, New builds it.
const Variable = "PINFOLD_TEST_REGISTRY"

var (
	server = sync.OnceValues(start)
	count  atomic.Int64
)

// process is the server that runs.
type process struct {
	address *url.URL
	// stdin is never closed: it ends with this process, and the server with it.
	stdin io.Closer
}

// New is an empty registry as a handler of HTTP.
func New(t testing.TB) http.Handler {
	t.Helper()
	running, err := server()
	if err != nil {
		t.Fatalf("start the registry: %v", err)
	}
	name := strconv.FormatInt(count.Add(1), 10)
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(running.address)
			r.Out.Header.Set("Registry", name)
		},
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0), // clients that go away are part of the tests
	}
}

// start starts the server, which ends with this process.
func start() (*process, error) {
	program := os.Getenv(Variable)
	if program == "" {
		dir, err := os.MkdirTemp("", "testregistry")
		if err != nil {
			return nil, err
		}
		defer func() { _ = os.RemoveAll(dir) }() // a program that runs needs no file
		program = filepath.Join(dir, "server")
		if err := build(program); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command(program)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("it said %q: %w", line, err)
	}
	return &process{&url.URL{Scheme: "http", Host: strings.TrimSpace(line)}, in}, nil
}

func build(program string) error {
	_, self, _, ok := runtime.Caller(0)
	if !ok || !filepath.IsAbs(self) {
		return errors.New("the source of the server is not known in a test that was built with -trimpath; set " + Variable)
	}
	cmd := exec.Command("go", "build", "-o", program, ".")
	cmd.Dir = filepath.Join(filepath.Dir(self), "server")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build it: %w\n%s", err, out)
	}
	return nil
}

// Repository is a place in a registry that takes images, as a client sees it.
type Repository struct {
	// Base is the registry's URL, Name the repository's.
	Base, Name string
	// User and Password are sent if there is a user.
	User, Password string
}

// PutBlob uploads a layer or configuration.
func (r Repository) PutBlob(t testing.TB, data []byte) {
	t.Helper()
	r.send(t, http.MethodPost, "blobs/uploads/?digest="+digest.FromBytes(data).String(), "application/octet-stream", data)
}

// PutManifest uploads a manifest or index under a tag or digest.
func (r Repository) PutManifest(t testing.TB, reference, mediaType string, data []byte) {
	t.Helper()
	r.send(t, http.MethodPut, "manifests/"+reference, mediaType, data)
}

func (r Repository) send(t testing.TB, method, path, contentType string, data []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.Base+"/v2/"+r.Name+"/"+path, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	if r.User != "" {
		req.SetBasicAuth(r.User, r.Password)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if answer, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusCreated {
		t.Fatalf("%s %s: %s: %s", method, path, resp.Status, answer)
	}
}
