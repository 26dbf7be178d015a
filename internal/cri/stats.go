package cri

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/fault"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/pod/lifecycle"
	"github.com/pinfold-run/pinfold/internal/stats"
)

// statistics serves the RPCs of statistics and metrics.
type statistics struct {
	places    *pod.Places
	book      *pod.Book
	sandboxes *lifecycle.Sandboxes
	reader    *stats.Reader
}

// ContainerStats returns what one container uses. A container that does not run has attributes
// only.
func (r *statistics) ContainerStats(ctx context.Context, req *runtimeapi.ContainerStatsRequest) (*runtimeapi.ContainerStatsResponse, error) {
	c, err := r.book.Container(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	rec := c.Record()
	if rec.State == pod.Running {
		r.reader.Expect(ctx, []stats.Container{r.observed(rec)})
	}
	used, ok := r.containerUsage(rec, summary.container)
	if !ok {
		used = containerUsage{rec: rec}
	}
	return &runtimeapi.ContainerStatsResponse{Stats: used.toStats(layersFS(r.places.Root))}, nil
}

// ListContainerStats returns what the running containers that match the filter use. It skips
// containers that end meanwhile.
func (r *statistics) ListContainerStats(ctx context.Context, req *runtimeapi.ListContainerStatsRequest) (*runtimeapi.ListContainerStatsResponse, error) {
	return &runtimeapi.ListContainerStatsResponse{Stats: r.containersStats(ctx, req.GetFilter())}, nil
}

// StreamContainerStats is ListContainerStats in several messages.
func (r *statistics) StreamContainerStats(req *runtimeapi.StreamContainerStatsRequest, stream runtimeapi.RuntimeService_StreamContainerStatsServer) error {
	return inBatches(r.containersStats(stream.Context(), req.GetFilter()), func(batch []*runtimeapi.ContainerStats) error {
		return stream.Send(&runtimeapi.StreamContainerStatsResponse{ContainerStats: batch})
	})
}

func (r *statistics) containersStats(ctx context.Context, f *runtimeapi.ContainerStatsFilter) []*runtimeapi.ContainerStats {
	var all []*runtimeapi.ContainerStats
	layers := layersFS(r.places.Root)
	for _, used := range r.containersUsage(ctx, func(rec *pod.ContainerRecord) bool {
		return idMatches(rec.ID, f.GetId()) && idMatches(rec.Sandbox, f.GetPodSandboxId()) &&
			labelsMatch(rec.Config.GetLabels(), f.GetLabelSelector())
	}) {
		all = append(all, used.toStats(layers))
	}
	return all
}

// PodSandboxStats returns what one pod uses.
func (r *statistics) PodSandboxStats(ctx context.Context, req *runtimeapi.PodSandboxStatsRequest) (*runtimeapi.PodSandboxStatsResponse, error) {
	box, err := r.book.Sandbox(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	rec := box.Record()
	used := r.podsUsage(ctx, []*pod.SandboxRecord{rec}, summary)[0]
	return &runtimeapi.PodSandboxStatsResponse{Stats: used.toStats(layersFS(r.places.Root))}, nil
}

// ListPodSandboxStats returns what the ready pods that match the filter use.
func (r *statistics) ListPodSandboxStats(ctx context.Context, req *runtimeapi.ListPodSandboxStatsRequest) (*runtimeapi.ListPodSandboxStatsResponse, error) {
	return &runtimeapi.ListPodSandboxStatsResponse{Stats: r.podsStats(ctx, req.GetFilter())}, nil
}

// StreamPodSandboxStats is ListPodSandboxStats in several messages.
func (r *statistics) StreamPodSandboxStats(req *runtimeapi.StreamPodSandboxStatsRequest, stream runtimeapi.RuntimeService_StreamPodSandboxStatsServer) error {
	return inBatches(r.podsStats(stream.Context(), req.GetFilter()), func(batch []*runtimeapi.PodSandboxStats) error {
		return stream.Send(&runtimeapi.StreamPodSandboxStatsResponse{PodSandboxStats: batch})
	})
}

func (r *statistics) podsStats(ctx context.Context, f *runtimeapi.PodSandboxStatsFilter) []*runtimeapi.PodSandboxStats {
	var all []*runtimeapi.PodSandboxStats
	layers := layersFS(r.places.Root)
	ready := r.ready(func(rec *pod.SandboxRecord) bool {
		return idMatches(rec.ID, f.GetId()) && labelsMatch(rec.Config.GetLabels(), f.GetLabelSelector())
	})
	for _, used := range r.podsUsage(ctx, ready, summary) {
		all = append(all, used.toStats(layers))
	}
	return all
}

// containerUsage is a container and what it uses. usage is nil if it does not run.
type containerUsage struct {
	rec   *pod.ContainerRecord
	usage *stats.Usage
}

// podUsage is a pod and what it and its running containers use. usage is never nil.
type podUsage struct {
	rec        *pod.SandboxRecord
	usage      *stats.Usage
	containers []containerUsage
	// network is nil for a pod on the node's network.
	network []stats.Interface
}

// observed is a container in the form of package stats.
func (r *statistics) observed(rec *pod.ContainerRecord) stats.Container {
	return observed(r.places.Paths, rec)
}

func observed(paths pod.Paths, rec *pod.ContainerRecord) stats.Container {
	return stats.Container{
		ID:      rec.ID,
		Process: rec.Process,
		Layer:   paths.Upper(rec.Sandbox, rec.ID),
		Shares:  uint64(max(0, rec.Config.GetLinux().GetResources().GetCpuShares())),
	}
}

// Observed lists the running containers. stats.Reader.Run watches them.
func (r *statistics) Observed() []stats.Container { return running(r.book, r.places.Paths) }

func running(book *pod.Book, paths pod.Paths) []stats.Container {
	var containers []stats.Container
	for _, c := range book.Containers() {
		if rec := c.Record(); rec.State == pod.Running {
			containers = append(containers, observed(paths, rec))
		}
	}
	return containers
}

// details say what is read of a container and what of a pod.
type details struct{ container, pod stats.Detail }

var (
	// summary is what CRI's statistics have a place for.
	summary = details{container: stats.SwapSpace, pod: stats.Processes}
	// everything is what metrics have.
	everything = details{stats.Everything, stats.Everything}
)

func (r *statistics) containerUsage(rec *pod.ContainerRecord, d stats.Detail) (containerUsage, bool) {
	if rec.State != pod.Running {
		return containerUsage{}, false
	}
	usage, err := r.reader.Container(r.observed(rec), d)
	return containerUsage{rec, usage}, err == nil
}

func (r *statistics) containersUsage(ctx context.Context, want func(*pod.ContainerRecord) bool) []containerUsage {
	records := r.running(ctx, want)
	used := make([]containerUsage, len(records))
	inParallel(len(records), func(i int) {
		used[i], _ = r.containerUsage(records[i], summary.container)
	})
	return slices.DeleteFunc(used, func(u containerUsage) bool { return u.usage == nil })
}

// running lists the running containers that are wanted. Their writable layers are measured.
func (r *statistics) running(ctx context.Context, want func(*pod.ContainerRecord) bool) []*pod.ContainerRecord {
	var records []*pod.ContainerRecord
	var expected []stats.Container
	for _, c := range r.book.Containers() {
		if rec := c.Record(); rec.State == pod.Running && want(rec) {
			records, expected = append(records, rec), append(expected, r.observed(rec))
		}
	}
	r.reader.Expect(ctx, expected)
	return records
}

// ready lists the ready pods that are wanted.
func (r *statistics) ready(want func(*pod.SandboxRecord) bool) []*pod.SandboxRecord {
	var records []*pod.SandboxRecord
	for _, box := range r.book.Sandboxes() {
		if rec := r.sandboxes.Current(box); rec.State == pod.Ready && want(rec) {
			records = append(records, rec)
		}
	}
	return records
}

// podsUsage reads what pods and their running containers use, the groups of several pods at once. All network namespaces
// are visited by one thread meanwhile.
func (r *statistics) podsUsage(ctx context.Context, records []*pod.SandboxRecord, d details) []podUsage {
	of := map[string][]*pod.ContainerRecord{}
	pins := make([]string, len(records))
	for i, rec := range records {
		of[rec.ID] = nil
		pins[i] = r.places.NamespacePins(rec)["net"]
	}
	for _, rec := range r.running(ctx, func(c *pod.ContainerRecord) bool { _, ok := of[c.Sandbox]; return ok }) {
		of[rec.Sandbox] = append(of[rec.Sandbox], rec)
	}
	networks := make(chan [][]stats.Interface, 1)
	go func() { networks <- stats.Networks(pins) }()
	used := make([]podUsage, len(records))
	inParallel(len(records), func(i int) {
		var containers []containerUsage
		for _, rec := range of[records[i].ID] {
			if one, ok := r.containerUsage(rec, d.container); ok {
				containers = append(containers, one)
			}
		}
		used[i] = r.withPod(records[i], containers, d)
	})
	for i, list := range <-networks {
		// Without a pin the pod has no network, so there is nothing to count.
		used[i].network = list
	}
	return used
}

// withPod adds what the whole pod uses: the numbers of its cgroup. If it has no cgroup of its own,
// they are the sum over its containers and its first process.
func (r *statistics) withPod(rec *pod.SandboxRecord, containers []containerUsage, d details) podUsage {
	var parts []*stats.Usage
	for _, c := range containers {
		parts = append(parts, c.usage)
	}
	if rec.Init.PID != 0 {
		init := stats.Container{ID: rec.ID, Process: rec.Init}
		if used, err := r.reader.Container(init, d.container); err == nil {
			parts = append(parts, used)
		}
	}
	used := podUsage{rec: rec, containers: containers}
	if group, ok := r.podGroup(rec, parts); ok {
		// If the group does not exist, usage stays nil.
		used.usage, _ = r.reader.Group(rec.ID, group, d.pod)
	}
	if used.usage == nil {
		used.usage = r.reader.Sum(rec.ID, time.Now(), parts)
	}
	return used
}

// atOnce limits how many groups are read at once: a list of a full node must not take all processors from the pods.
const atOnce = 4

// inParallel calls read for each number below n, in several goroutines.
func inParallel(n int, read func(i int)) {
	var next atomic.Int64
	errs := make([]error, min(atOnce, runtime.GOMAXPROCS(0), n))
	var readers sync.WaitGroup
	for reader := range errs {
		readers.Go(func() {
			errs[reader] = fault.Guard(func() error {
				for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
					read(i)
				}
				return nil
			})
		})
	}
	readers.Wait()
	if err := errors.Join(errs...); err != nil {
		panic(err) // it fails the request, see requests
	}
}

// podGroup is the pod's own cgroup, if it has one: the group above its containers', if it was asked for or is named
// after the pod. Other groups are shared by pods. A plugin may have put the containers elsewhere, so the group above
// them counts.
func (r *statistics) podGroup(rec *pod.SandboxRecord, parts []*stats.Usage) (stats.Group, bool) {
	group := r.places.Cgroup(rec)
	for _, u := range parts {
		if up := u.Group.Parent(); group.Asked || group.Ours && up.Path == group.Path() {
			return up, true
		}
	}
	return r.reader.At(group.Path()), group.Asked
}
