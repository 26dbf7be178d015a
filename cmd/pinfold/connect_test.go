package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/config"
)

// runtimeNamed is a daemon that says who it is, and answers what a test gives it.
type runtimeNamed struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	runtimeapi.UnimplementedImageServiceServer
	asked  atomic.Bool
	name   string
	status *runtimeapi.StatusResponse
	pods   []*runtimeapi.PodSandboxStatusResponse
	images []*runtimeapi.Image
}

func (r *runtimeNamed) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: r.name, RuntimeVersion: "v1.2.3", RuntimeApiVersion: "v1"}, nil
}

func (r *runtimeNamed) Status(ctx context.Context, _ *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	r.asked.Store(true)
	if r.status == nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return r.status, nil
}

func (r *runtimeNamed) ListPodSandbox(context.Context, *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	list := &runtimeapi.ListPodSandboxResponse{}
	for _, p := range r.pods {
		list.Items = append(list.Items, &runtimeapi.PodSandbox{Id: p.Status.Id, Metadata: p.Status.Metadata, State: p.Status.State, CreatedAt: p.Status.CreatedAt})
	}
	return list, nil
}

func (r *runtimeNamed) PodSandboxStatus(_ context.Context, req *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	for _, p := range r.pods {
		if p.Status.Id == req.PodSandboxId {
			return p, nil
		}
	}
	return nil, errors.New("no such pod")
}

func (r *runtimeNamed) ListImages(context.Context, *runtimeapi.ListImagesRequest) (*runtimeapi.ListImagesResponse, error) {
	return &runtimeapi.ListImagesResponse{Images: r.images}, nil
}

// serve returns the path of a socket where it answers.
func (r *runtimeNamed) serve(t *testing.T) string {
	t.Helper()
	socket := filepath.Join(shortDir(t), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	runtimeapi.RegisterRuntimeServiceServer(server, r)
	runtimeapi.RegisterImageServiceServer(server, r)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	return socket
}

// shortDir is a directory whose path leaves room for a socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pf-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestNoDaemonIsOneLineThatSaysWhatToDo(t *testing.T) {
	dir := shortDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, "left")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: left, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	deaf := filepath.Join(dir, "deaf")
	silent, err := net.Listen("unix", deaf)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	web := filepath.Join(dir, "web")
	l2, err := net.Listen("unix", web)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Second}
	go func() { _ = server.Serve(l2) }()
	defer server.Close()
	for socket, says := range map[string][]string{
		filepath.Join(dir, "missing"): {"there is no socket", "systemctl start pinfold"},
		filepath.Join(dir, "no/dir"):  {"there is no socket", "systemctl start pinfold"},
		"unix://" + left:              {"no process listens", "systemctl start pinfold"},
		file:                          {"is not a socket", "--socket"},
		deaf:                          {"does not answer", "--timeout"},
		web:                           {"does not speak CRI", "--socket"},
		(&runtimeNamed{name: "containerd"}).serve(t): {"answers containerd v1.2.3, not Pinfold", "(from --socket)"},
	} {
		began := time.Now()
		code, out, errs := call(t, "--socket", socket, "--timeout", "500ms", "ps")
		if code != 1 || out != "" || strings.Count(errs, "\n") != 1 || strings.Contains(errs, "rpc error") {
			t.Errorf("%s: exit code %d: %q %q", socket, code, out, errs)
		}
		for _, part := range says {
			if !strings.Contains(errs, part) {
				t.Errorf("%s: %q does not say %q", socket, errs, part)
			}
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("%s: it took %s", socket, took)
		}
	}
	if err := (endpoint{path: "/x"}).explainDial(&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EACCES)}); !strings.Contains(err.Error(), "only root") {
		t.Errorf("without permission: %v", err)
	}
}

func TestAQuestionThatIsNotAnsweredEnds(t *testing.T) {
	socket := (&runtimeNamed{name: "pinfold"}).serve(t)
	code, _, errs := call(t, "--socket", socket, "--timeout", "300ms", "status")
	if code != 1 || !strings.Contains(errs, "does not answer") || strings.Contains(errs, "rpc error") {
		t.Errorf("exit code %d: %q", code, errs)
	}
}

func TestTheSocketIsTheFlagsOrTheEnvironmentsOrTheDefault(t *testing.T) {
	dir := shortDir(t)
	standard, other, crictl := filepath.Join(dir, "standard"), filepath.Join(dir, "other"), filepath.Join(dir, "crictl.yaml")
	touch := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := map[string]string{}
	p := systemPlaces()
	p.standard, p.crictl, p.env = standard, crictl, func(name string) string { return env[name] }
	expect := func(when, given, path, from string) {
		t.Helper()
		e, err := p.find(given)
		if err != nil || e.path != path || e.from != from {
			t.Errorf("%s: %+v %v, want %s from %s", when, e, err, path, from)
		}
	}
	expect("nothing", "", standard, "")
	touch(crictl, "runtime-endpoint: unix://"+other+"\n")
	expect("crictl names a socket that is not there", "", standard, "")
	touch(other, "")
	expect("crictl names one that is there", "", other, crictl)
	if e, err := p.find(""); err != nil || !strings.Contains(e.explainAnswer(&runtimeapi.VersionResponse{RuntimeName: "containerd"}, nil).Error(), "there is no socket "+standard) {
		t.Errorf("another runtime at crictl's socket: %v", err)
	}
	touch(standard, "")
	expect("both", "", standard, "")
	env["CONTAINER_RUNTIME_ENDPOINT"] = "unix:///a"
	expect("the field's variable", "", "/a", "$CONTAINER_RUNTIME_ENDPOINT")
	env["PINFOLD_SOCKET"] = "/b"
	expect("our variable", "", "/b", "$PINFOLD_SOCKET")
	expect("the flag", "unix:///c", "/c", "--socket")
	if _, err := p.find("tcp://x"); err == nil {
		t.Error("tcp was accepted")
	}
	env["PINFOLD_SOCKET"] = "npipe:////x"
	if _, err := p.find(""); err == nil || !strings.Contains(err.Error(), "$PINFOLD_SOCKET") {
		t.Errorf("a bad variable: %v", err)
	}
}

func TestCrictlsConfigurationIsReadOnlyIfItIsAFileOfItsForm(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "crictl.yaml")
	for text, want := range map[string]string{
		"runtime-endpoint: unix:///x\nimage-endpoint: y\ntimeout: 2\n": "unix:///x",
		"runtime-endpoint: \"\"\n":                                     "",
		"":                                                             "",
		"[1, 2]":                                                       "",
		"runtime-endpoint: [a]":                                        "",
		"\x00\xff":                                                     "",
		"a: &a [*a]":                                                   "",
		strings.Repeat("#", 1+64<<10):                                  "",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := crictlEndpoint(file); got != want {
			t.Errorf("%.30q: %q, want %q", text, got, want)
		}
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := crictlEndpoint(fifo) + crictlEndpoint(dir) + crictlEndpoint(filepath.Join(dir, "missing")); got != "" {
		t.Errorf("from what is no file: %q", got)
	}
}

func TestASocketIsAPathOrAURLOfTheSchemeUnix(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"/run/x.sock": "/run/x.sock", "unix:///run/x.sock": "/run/x.sock", "unix:/run/x.sock": "/run/x.sock", "x.sock": filepath.Join(here, "x.sock"), "/run//x/../y": "/run/y",
	} {
		if got, err := socketPath(text); err != nil || got != want {
			t.Errorf("%q: %q %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "unix://", "unix://run/x", "tcp://127.0.0.1:1", "npipe:////./pipe/x", "http://x", "://", "a\x00b", "/" + strings.Repeat("x", 107)} {
		if got, err := socketPath(bad); err == nil {
			t.Errorf("%q was taken as %q", bad, got)
		}
	}
}

func TestOnlyAnEndedConnectionIsTakenForADaemonThatHasEnded(t *testing.T) {
	r := &runtimeNamed{name: "pinfold"}
	socket := filepath.Join(shortDir(t), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	runtimeapi.RegisterRuntimeServiceServer(server, r)
	go func() { _ = server.Serve(l) }()
	defer server.Stop()
	n, err := (&tool{socket: socket}).connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	ended := make(chan error, 1)
	go func() { // hangs, as the daemon has no status
		_, err := n.runtime.Status(t.Context(), &runtimeapi.StatusRequest{})
		ended <- err
	}()
	for began := time.Now(); !r.asked.Load() && time.Since(began) < 10*time.Second; {
		time.Sleep(time.Millisecond)
	}
	server.Stop()
	if err := <-ended; !isGone(err) || !isGone(fmt.Errorf("wrapped: %w", err)) || !strings.HasPrefix(plain(err), "the daemon has ended") || strings.Contains(plain(err), "rpc error") {
		t.Errorf("in the middle of a call: %v", err)
	}
	if _, err := n.runtime.Version(t.Context(), &runtimeapi.VersionRequest{}); !isGone(err) {
		t.Errorf("afterwards: %v", err)
	}
	err = status.Error(codes.Unavailable, "no network configuration in /etc/cni/net.d")
	if isGone(err) || plain(err) != "no network configuration in /etc/cni/net.d" {
		t.Errorf("what the daemon cannot do now: %s", plain(err))
	}
}

func TestDoctorAsksTheDaemonOfTheConfiguration(t *testing.T) {
	tool := newTool()
	c := &config.Effective{Config: &config.Config{Socket: filepath.Join(t.TempDir(), "none.sock")}}
	_, err := tool.askDaemon(t.Context(), c)
	if err == nil || !strings.Contains(err.Error(), c.Socket+" (from the configuration)") {
		t.Errorf("got %v", err)
	}
	tool.socket = filepath.Join(t.TempDir(), "other.sock")
	_, err = tool.askDaemon(t.Context(), c)
	if err == nil || !strings.Contains(err.Error(), tool.socket+" (from --socket)") {
		t.Errorf("got %v", err)
	}
}
