package e2e

import (
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// scrape reads the metrics of the admin socket.
func (n *node) scrape() string {
	n.t.Helper()
	_, text := n.adminPage("/metrics")
	return text
}

// adminPage reads a page of the admin socket.
func (n *node) adminPage(path string) (code int, text string) {
	n.t.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", n.path("state", "admin.sock"))
	}}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://localhost" + path)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// sample is the value of one series; -1 if there is none.
func sample(text, series string) float64 {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err == nil {
				return n
			}
		}
	}
	return -1
}

// busy does what each metric counts: pods that live and fail, pulls that succeed and fail, a session. host is a registry. At
// the end of the test a pull is in progress.
func (n *node) busy(host string) {
	n.t.Helper()
	if _, err := n.pull(host+"/library/busybox:1", secret); err != nil {
		n.t.Fatal(err)
	}
	n.loadImage()
	config := containerConfig("main", "sh", "-c", "echo 0123456789; exit 3")
	config.LogPath = "main.log"
	pod, container := n.runIn("metrics", config)
	n.ended(container)
	if _, err := n.runtime.RunPodSandbox(n.ctx(), &runtimeapi.RunPodSandboxRequest{Config: &runtimeapi.PodSandboxConfig{}}); err == nil {
		n.t.Fatal("a pod without a name was made")
	}
	broken := containerConfig("broken", "/nothing")
	if made, err := n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: broken}); err == nil {
		_, _ = n.runtime.StartContainer(n.ctx(), &runtimeapi.StartContainerRequest{ContainerId: made.GetContainerId()})
	}
	if _, err := n.pull("127.0.0.1:1/library/busybox:1", secret); err == nil {
		n.t.Fatal("a pull from nowhere succeeded")
	}
	s := dialWebSocket(n.t, n.execURL(n.runContainerOf(pod, containerConfig("idle", "sleep", "100")), pipes, "true"), pipes).reading()
	if code := s.finish(n.t).code; code != 0 {
		n.t.Errorf("the session ended with %d", code)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	n.check(err)
	n.t.Cleanup(func() { _ = silent.Close() })
	pulling, cancel := context.WithCancel(n.ctx())
	n.t.Cleanup(cancel)
	go func() {
		_, _ = n.images.PullImage(pulling, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: silent.Addr().String() + "/silent:1"}})
	}()
	accepted, err := silent.Accept() // it has begun
	n.check(err)
	n.t.Cleanup(func() { _ = accepted.Close() })
}

func TestOperatorsMetricsTellOfAPodsLife(t *testing.T) {
	n := newNode(t)
	host := startRegistry(t)
	n.launch()
	n.busy(host)
	text := n.scrape()
	n.asked(text)
	for series, want := range map[string]float64{
		`pinfold_objects{kind="sandbox",state="ready"}`:                                                          1,
		`pinfold_container_ends_total{reason="Error"}`:                                                           1,
		`pinfold_operations_total{code="OK",operation="StartContainer"}`:                                         2,
		`pinfold_step_duration_seconds_count{operation="RunPodSandbox",step="network",way="do"}`:                 1,
		`pinfold_program_duration_seconds_count{command="ADD",kind="cni",program="bridge"}`:                      1,
		`pinfold_program_duration_seconds_count{command="create",kind="oci",program="` + binaries.handler + `"}`: 3,
		`pinfold_grpc_calls_total{code="InvalidArgument",method="RunPodSandbox",service="RuntimeService"}`:       1,
		`pinfold_image_pulls_total{code="Unavailable",registry="127.0.0.1:1"}`:                                   1,
		`pinfold_image_pulls_total{code="OK",registry="` + host + `"}`:                                           1,
		`pinfold_operations_in_flight{operation="PullImage",step="resolve"}`:                                     1,
		`pinfold_sessions_total{kind="exec",protocol="websocket"}`:                                               1,
		`pinfold_container_log_bytes_total`:                                                                      11,
		`pinfold_container_log_gaps_total`:                                                                       0,
		`pinfold_pinder_connected`:                                                                               1,
		`pinfold_debts{kind="sandbox"}`:                                                                          0,
	} {
		if got := sample(text, series); got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
	n.kill()
	n.launch()
	if got := sample(n.scrape(), `pinfold_recovered_objects{kind="sandbox",result="kept"}`); got != 1 {
		t.Errorf("%v pods were kept, want 1", got)
	}
}
