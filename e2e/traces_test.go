package e2e

import (
	"context"
	"strings"
	"syscall"
	"testing"

	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc/metadata"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/testcollector"
)

func TestTheLifeOfAPodIsATraceOfItsClient(t *testing.T) {
	const trace = "0af7651916cd43dd8448eb211c80319c"
	collector := testcollector.Start(t, false)
	n := newNode(t)
	n.env = append(n.env, "OTEL_EXPORTER_OTLP_ENDPOINT="+collector.URL, "OTEL_EXPORTER_OTLP_HEADERS=authorization=hunter2-of-the-collector")
	host := startRegistry(t)
	n.launch()
	n.traced(metadata.AppendToOutgoingContext(n.ctx(), "traceparent", "00-"+trace+"-b7ad6b7169203331-01"), host)
	n.check(n.removeAll())
	n.signal(syscall.SIGTERM) // sends the last spans

	for operation, children := range map[string][]string{
		"RunPodSandbox":   {"record", "namespaces", "files", "network", "sysctls", "init", "plugins", "ready"},
		"CreateContainer": {"record", "image", "rootfs", "volumes", "bundle", "plugins", "binds", "runtime create", "created"},
		"StartContainer":  {"plugins", "runtime start", "running"},
		"PullImage":       {"resolve", "layers", "publish"},
	} {
		span := collector.Span(t, operation, nil)
		if string(span.GetParentSpanId()) != "\xb7\xad\x6b\x71\x69\x20\x33\x31" {
			t.Errorf("%s is below %x, not below its client", operation, span.GetParentSpanId())
		}
		for _, child := range children {
			collector.Span(t, child, span)
		}
	}
	network := collector.Span(t, "network", collector.Span(t, "RunPodSandbox", nil))
	bridge := collector.Span(t, "bridge ADD", network)
	if text := bridge.String(); !strings.Contains(text, "CNI_ARGS.K8S_POD_NAME") || strings.Contains(text, "traced") {
		t.Errorf("the arguments of the plugin: %s", text)
	}
	collector.Span(t, binaries.handler+" create", collector.Span(t, "runtime create", nil))
	collector.Span(t, "unpack layer", collector.Span(t, "layers", nil))
	failed := 0
	for _, span := range collector.Spans() {
		if span.GetStatus().GetCode() == otlp.Status_STATUS_CODE_ERROR && span.GetParentSpanId() != nil {
			failed++
		}
		if text := span.String(); strings.Contains(text, secret) {
			t.Errorf("a span has a secret: %s", text)
		}
	}
	if failed == 0 {
		t.Error("no span of the failed start has an error")
	}
	if strings.Contains(n.log.String(), "hunter2") {
		t.Error("the log has the credential of the collector")
	}
}

// traced pulls an image, and runs a container that starts and one that does not.
func (n *node) traced(ctx context.Context, host string) {
	n.t.Helper()
	_, err := n.images.PullImage(ctx, &runtimeapi.PullImageRequest{
		Image: &runtimeapi.ImageSpec{Image: host + "/library/busybox:1"}, Auth: &runtimeapi.AuthConfig{Username: "user", Password: secret},
	})
	n.check(err)
	n.loadImage()
	box, err := n.runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: n.podConfig("traced")})
	n.check(err)
	config := containerConfig("main", "true")
	config.Envs = []*runtimeapi.KeyValue{{Key: "PASSWORD", Value: []byte(secret)}}
	made, err := n.runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: box.GetPodSandboxId(), Config: config})
	n.check(err)
	_, err = n.runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: made.GetContainerId()})
	n.check(err)
	config.Metadata.Name, config.Command = "broken", []string{"/nothing"}
	broken, err := n.runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: box.GetPodSandboxId(), Config: config})
	if err == nil {
		_, err = n.runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: broken.GetContainerId()})
	}
	if err == nil {
		n.t.Error("a program that does not exist was started")
	}
}

func TestACollectorThatHangsDoesNotDelayPods(t *testing.T) {
	n := newNode(t)
	n.env = append(n.env, "OTEL_EXPORTER_OTLP_ENDPOINT="+testcollector.Start(t, true).URL, "OTEL_BSP_MAX_QUEUE_SIZE=10")
	n.launch()
	n.loadImage()
	n.idle()
	if got := sample(n.scrape(), "pinfold_trace_spans_dropped_total"); got < 1 {
		t.Errorf("%v spans were dropped", got)
	}
}
