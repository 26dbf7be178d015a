package cri

import (
	"context"
	"slices"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/stats"
)

// commonLabels are on every metric, as with cAdvisor in the kubelet. id is the cgroup's path, name
// the ID. container and image are empty for metrics of the whole pod.
var commonLabels = []string{"container", "id", "image", "name", "namespace", "pod"}

// ListMetricDescriptors lists all possible metrics. The list is always the same.
func (r *statistics) ListMetricDescriptors(context.Context, *runtimeapi.ListMetricDescriptorsRequest) (*runtimeapi.ListMetricDescriptorsResponse, error) {
	resp := &runtimeapi.ListMetricDescriptorsResponse{}
	for _, m := range stats.Metrics() {
		resp.Descriptors = append(resp.Descriptors, &runtimeapi.MetricDescriptor{
			Name: m.Name, Help: m.Help, LabelKeys: slices.Concat(commonLabels, m.Labels),
		})
	}
	return resp, nil
}

// ListPodSandboxMetrics measures all ready pods and their running containers.
func (r *statistics) ListPodSandboxMetrics(ctx context.Context, _ *runtimeapi.ListPodSandboxMetricsRequest) (*runtimeapi.ListPodSandboxMetricsResponse, error) {
	return &runtimeapi.ListPodSandboxMetricsResponse{PodMetrics: r.podsMetrics(ctx)}, nil
}

// StreamPodSandboxMetrics is ListPodSandboxMetrics in several messages.
func (r *statistics) StreamPodSandboxMetrics(_ *runtimeapi.StreamPodSandboxMetricsRequest, stream runtimeapi.RuntimeService_StreamPodSandboxMetricsServer) error {
	return inBatchesOf(metricsBatchSize, r.podsMetrics(stream.Context()), func(batch []*runtimeapi.PodSandboxMetrics) error {
		return stream.Send(&runtimeapi.StreamPodSandboxMetricsResponse{PodSandboxMetrics: batch})
	})
}

func (r *statistics) podsMetrics(ctx context.Context) []*runtimeapi.PodSandboxMetrics {
	var all []*runtimeapi.PodSandboxMetrics
	ready := r.ready(func(*pod.SandboxRecord) bool { return true })
	for _, used := range r.podsUsage(ctx, ready, everything) {
		meta := used.rec.Config.GetMetadata()
		out := &runtimeapi.PodSandboxMetrics{
			PodSandboxId: used.rec.ID,
			Metrics: measure(
				stats.Subject{Usage: used.usage, Network: used.network, Started: used.rec.Created},
				[]string{"", used.usage.Group.Path, "", used.rec.ID, meta.GetNamespace(), meta.GetName()},
			),
		}
		for _, c := range used.containers {
			subject := stats.Subject{
				Usage: c.usage, Started: c.rec.Times.Started, Files: r.reader.Files(c.usage, r.observed(c.rec).Process),
			}
			labels := []string{
				c.rec.Config.GetMetadata().GetName(), c.usage.Group.Path, c.rec.ImageName(), c.rec.ID, meta.GetNamespace(), meta.GetName(),
			}
			out.ContainerMetrics = append(out.ContainerMetrics, &runtimeapi.ContainerMetrics{
				ContainerId: c.rec.ID, Metrics: measure(subject, labels),
			})
		}
		all = append(all, out)
	}
	return all
}

func measure(subject stats.Subject, labels []string) []*runtimeapi.Metric {
	var all []*runtimeapi.Metric
	for _, m := range stats.Metrics() {
		kind := runtimeapi.MetricType_GAUGE
		if m.Counter {
			kind = runtimeapi.MetricType_COUNTER
		}
		for _, v := range m.Values(subject) {
			metric := &runtimeapi.Metric{
				Name: m.Name, MetricType: kind, LabelValues: slices.Concat(labels, v.Labels), Value: value(&v.N),
			}
			if !v.At.IsZero() {
				metric.Timestamp = v.At.UnixNano()
			}
			all = append(all, metric)
		}
	}
	return all
}
