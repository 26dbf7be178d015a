package containerd

import (
	"context"
	"path/filepath"
	"slices"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/stats"
)

// tasks serves tasks.Tasks. A task is the process of a container; that of a pod is its stand-in.
type tasks struct {
	tasksapi.UnimplementedTasksServer
	objects
	stats   *stats.Reader
	cgroups *cgroup.Hierarchies
}

// Get returns the task of a container or of a pod. One that has no process yet, or none any more that stands in for it,
// has no task: clients ask again or do without.
func (s *tasks) Get(ctx context.Context, req *tasksapi.GetRequest) (*tasksapi.GetResponse, error) {
	task, err := s.task(ctx, req.GetContainerID())
	if err != nil {
		return nil, err
	}
	if req.GetExecID() != "" {
		return nil, status.Errorf(codes.NotFound, "process %q of task %q: not found", req.GetExecID(), req.GetContainerID())
	}
	return &tasksapi.GetResponse{Process: task}, nil
}

func (s *tasks) task(ctx context.Context, id string) (*tasktypes.Process, error) {
	box, c, err := s.find(ctx, id)
	if err != nil {
		return nil, err
	}
	task := s.taskOf(box, c)
	if task == nil {
		return nil, status.Errorf(codes.NotFound, "no running task for container %q: not found", id)
	}
	return task, nil
}

func (o objects) taskOf(box *pod.SandboxRecord, c *pod.ContainerRecord) *tasktypes.Process {
	if box != nil {
		process := o.standIn(box)
		if process.PID == 0 {
			return nil
		}
		return &tasktypes.Process{ContainerID: box.ID, ID: box.ID, Pid: uint32(process.PID), Status: tasktypes.Status_RUNNING}
	}
	if c.Process.PID == 0 {
		return nil
	}
	task := &tasktypes.Process{ContainerID: c.ID, ID: c.ID, Pid: uint32(c.Process.PID), Terminal: c.Config.GetTty()}
	switch c.State {
	case pod.Running:
		task.Status = tasktypes.Status_RUNNING
	case pod.Exited:
		task.Status, task.ExitStatus, task.ExitedAt = tasktypes.Status_STOPPED, uint32(c.Exit.Code), timestamppb.New(c.Times.Finished)
	default:
		task.Status = tasktypes.Status_CREATED
	}
	return task
}

// List returns all tasks.
func (s *tasks) List(ctx context.Context, _ *tasksapi.ListTasksRequest) (*tasksapi.ListTasksResponse, error) {
	ours, err := here(ctx)
	if err != nil {
		return nil, err
	}
	resp := &tasksapi.ListTasksResponse{}
	if !ours {
		return resp, nil
	}
	for _, rec := range s.sandboxRecords() {
		if task := s.taskOf(rec, nil); task != nil {
			resp.Tasks = append(resp.Tasks, task)
		}
	}
	for _, rec := range s.containerRecords() {
		if task := s.taskOf(nil, rec); task != nil {
			resp.Tasks = append(resp.Tasks, task)
		}
	}
	return resp, nil
}

// ListPids returns the processes of a container; that of a pod is its stand-in alone.
func (s *tasks) ListPids(ctx context.Context, req *tasksapi.ListPidsRequest) (*tasksapi.ListPidsResponse, error) {
	task, err := s.task(ctx, req.GetContainerID())
	if err != nil {
		return nil, err
	}
	pids := []int{int(task.Pid)}
	if _, c, _ := s.find(ctx, req.GetContainerID()); c != nil {
		pids = s.processes(c)
	}
	resp := &tasksapi.ListPidsResponse{}
	for _, pid := range pids {
		resp.Processes = append(resp.Processes, &tasktypes.ProcessInfo{Pid: uint32(pid)})
	}
	return resp, nil
}

// processes are those of the container's group, in whichever hierarchy has it.
func (s *tasks) processes(c *pod.ContainerRecord) []int {
	group, err := s.stats.GroupOf(c.Process, c.ID)
	if err != nil {
		return nil
	}
	for _, mount := range s.cgroups.Mounts() {
		if pids, err := cgroup.Group(filepath.Join(mount, group.Path)).Processes(); err == nil && slices.Contains(pids, c.Process.PID) {
			return pids
		}
	}
	return []int{c.Process.PID}
}

// Wait waits for the end of a container.
func (s *tasks) Wait(ctx context.Context, req *tasksapi.WaitRequest) (*tasksapi.WaitResponse, error) {
	_, rec, err := s.find(ctx, req.GetContainerID())
	if err != nil {
		return nil, err
	}
	if rec == nil || req.GetExecID() != "" {
		return nil, status.Error(codes.Unimplemented, "")
	}
	c, err := s.book.Container(rec.ID)
	if err != nil {
		return nil, err
	}
	select {
	case <-c.Ended:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	rec = c.Record()
	return &tasksapi.WaitResponse{ExitStatus: uint32(rec.Exit.Code), ExitedAt: timestamppb.New(rec.Times.Finished)}, nil
}

// Metrics returns what the containers use whose tasks match a filter on "id".
func (s *tasks) Metrics(ctx context.Context, req *tasksapi.MetricsRequest) (*tasksapi.MetricsResponse, error) {
	filter, ours, err := selection(ctx, req.GetFilters())
	if err != nil {
		return nil, err
	}
	resp := &tasksapi.MetricsResponse{}
	if !ours {
		return resp, nil
	}
	for _, rec := range s.containerRecords() {
		if rec.State != pod.Running || !filter.Match(idOnly(rec.ID)) {
			continue
		}
		// A container that ends meanwhile is left out, as in containerd.
		usage, err := s.stats.Container(stats.Container{ID: rec.ID, Process: rec.Process}, stats.Everything)
		if err != nil {
			continue
		}
		resp.Metrics = append(resp.Metrics, &types.Metric{
			Timestamp: timestamppb.New(usage.At), ID: rec.ID, Data: protoAny(metrics(usage)),
		})
	}
	return resp, nil
}

// idOnly is what a filter sees of a task.
type idOnly string

// Field implements filters.Adaptor.
func (id idOnly) Field(path []string) (string, bool) {
	return string(id), len(path) == 1 && path[0] == "id"
}
