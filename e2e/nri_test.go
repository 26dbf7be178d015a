package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// plugin is an NRI plugin that the test controls. It notes what it is told and calls the test's
// functions.
type plugin struct {
	stub stub.Stub

	mu         sync.Mutex
	events     []string
	pods       []string
	containers map[string]api.ContainerState
	// shown are the objects at an event ("event ID").
	shownPods       map[string]*api.PodSandbox
	shownContainers map[string]*api.Container

	synchronize func()
	create      func(*api.PodSandbox, *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error)
	pod         func(event string) error
	stopped     func(*api.Container) []*api.ContainerUpdate
	update      func(*api.LinuxResources) []*api.ContainerUpdate
	synced      chan struct{}
	gone        chan struct{}
}

func (p *plugin) note(event, id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, event+" "+id)
}

func (p *plugin) noteContainer(event string, c *api.Container) {
	p.note(event, c.GetId())
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shownContainers == nil {
		p.shownContainers = map[string]*api.Container{}
	}
	p.shownContainers[event+" "+c.GetId()] = c
}

// shownPod and shownContainer are what the plugin got with an event.
func (p *plugin) shownPod(event, id string) *api.PodSandbox {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shownPods[event+" "+id]
}

func (p *plugin) shownContainer(event, id string) *api.Container {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shownContainers[event+" "+id]
}

// told are the events of one object, in order.
func (p *plugin) told(id string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []string
	for _, e := range p.events {
		if event, of, _ := strings.Cut(e, " "); of == id {
			list = append(list, event)
		}
	}
	return list
}

func (p *plugin) Synchronize(_ context.Context, pods []*api.PodSandbox, containers []*api.Container) ([]*api.ContainerUpdate, error) {
	p.mu.Lock()
	p.containers = map[string]api.ContainerState{}
	for _, pod := range pods {
		p.pods = append(p.pods, pod.GetId())
	}
	for _, c := range containers {
		p.containers[c.GetId()] = c.GetState()
	}
	p.mu.Unlock()
	if p.synchronize != nil {
		p.synchronize()
	}
	close(p.synced)
	return nil, nil
}

func (p *plugin) podEvent(event string, pod *api.PodSandbox) error {
	p.note(event, pod.GetId())
	p.mu.Lock()
	if p.shownPods == nil {
		p.shownPods = map[string]*api.PodSandbox{}
	}
	p.shownPods[event+" "+pod.GetId()] = pod
	p.mu.Unlock()
	if p.pod != nil {
		return p.pod(event)
	}
	return nil
}

func (p *plugin) RunPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.podEvent("run", pod)
}

func (p *plugin) StopPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.podEvent("stop", pod)
}

func (p *plugin) RemovePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.podEvent("remove", pod)
}

func (p *plugin) UpdatePodSandbox(_ context.Context, pod *api.PodSandbox, _, _ *api.LinuxResources) error {
	return p.podEvent("update", pod)
}

func (p *plugin) PostUpdatePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.podEvent("updated", pod)
}

func (p *plugin) CreateContainer(_ context.Context, pod *api.PodSandbox, c *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	p.noteContainer("create", c)
	if p.create != nil {
		return p.create(pod, c)
	}
	return nil, nil, nil
}

func (p *plugin) PostCreateContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) error {
	p.noteContainer("created", c)
	return nil
}

func (p *plugin) StartContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) error {
	p.noteContainer("start", c)
	return nil
}

func (p *plugin) PostStartContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) error {
	p.noteContainer("started", c)
	return nil
}

func (p *plugin) UpdateContainer(_ context.Context, _ *api.PodSandbox, c *api.Container, r *api.LinuxResources) ([]*api.ContainerUpdate, error) {
	p.noteContainer("update", c)
	if p.update != nil {
		return p.update(r), nil
	}
	return nil, nil
}

func (p *plugin) PostUpdateContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) error {
	p.noteContainer("updated", c)
	return nil
}

func (p *plugin) StopContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) ([]*api.ContainerUpdate, error) {
	p.noteContainer("stop", c)
	if p.stopped != nil {
		return p.stopped(c), nil
	}
	return nil, nil
}

func (p *plugin) RemoveContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) error {
	p.noteContainer("remove", c)
	return nil
}

// quiet drops the stub's own log.
type quiet struct{}

func (quiet) Debugf(context.Context, string, ...any) {}
func (quiet) Infof(context.Context, string, ...any)  {}
func (quiet) Warnf(context.Context, string, ...any)  {}
func (quiet) Errorf(context.Context, string, ...any) {}

// register connects a plugin and waits until it has been synchronized.
func (n *node) register(p *plugin, name string, options ...stub.Option) *plugin {
	n.t.Helper()
	n.connectPlugin(p, name, options...)
	select {
	case <-p.synced:
	case <-time.After(readyTimeout):
		n.t.Fatalf("plugin %s was not synchronized", name)
	}
	return p
}

func (n *node) connectPlugin(p *plugin, name string, options ...stub.Option) {
	n.t.Helper()
	p.synced, p.gone = make(chan struct{}), make(chan struct{})
	gone := p.gone
	var err error
	p.stub, err = stub.New(p, append([]stub.Option{
		stub.WithPluginName(name), stub.WithPluginIdx("10"), stub.WithSocketPath(n.path("state", "nri.sock")),
		stub.WithOnClose(func() { close(gone) }), stub.WithLogger(quiet{}),
	}, options...)...)
	n.check(err)
	n.check(p.stub.Start(context.Background()))
	n.t.Cleanup(p.stub.Stop)
}

// end stops and removes a container.
func (n *node) end(id string) {
	n.t.Helper()
	_, err := n.runtime.StopContainer(n.ctx(), &runtimeapi.StopContainerRequest{ContainerId: id})
	n.check(err)
	_, err = n.runtime.RemoveContainer(n.ctx(), &runtimeapi.RemoveContainerRequest{ContainerId: id})
	n.check(err)
}

func (n *node) endPod(id string) {
	n.t.Helper()
	_, err := n.runtime.StopPodSandbox(n.ctx(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: id})
	n.check(err)
	_, err = n.runtime.RemovePodSandbox(n.ctx(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id})
	n.check(err)
}

func (n *node) tells(p *plugin, id string, want ...string) {
	n.t.Helper()
	if err := n.until(fmt.Sprint(want), func() bool { return len(p.told(id)) >= len(want) }); err != nil || !slices.Equal(p.told(id), want) {
		n.t.Errorf("the plugin was told %v, want %v", p.told(id), want)
	}
}

func TestAnNRIPluginIsToldEachEventOnceAndInOrder(t *testing.T) {
	n := started(t)
	p := n.register(&plugin{}, "witness")
	pod := n.runPodOf(n.podConfig("p", "userns"))
	stopped := n.runContainerOf(pod, sleeper("stopped"))
	n.end(stopped)
	ended := n.runContainerOf(pod, containerConfig("ended", "true"))
	n.tells(p, ended, "create", "created", "start", "started", "stop")
	n.end(ended)
	left := n.runContainerOf(pod, sleeper("left"))
	n.endPod(pod)
	n.endPod(pod)
	for _, id := range []string{stopped, ended, left} {
		n.tells(p, id, "create", "created", "start", "started", "stop", "remove")
	}
	n.tells(p, pod, "run", "stop", "remove")
}

func TestWhatAnNRIPluginAdjustsIsWhatTheContainerGets(t *testing.T) {
	n := started(t)
	n.check(os.Mkdir(n.path("volumes", "extra"), 0o755))
	n.write("volumes/extra/word", "from a plugin")
	n.register(&plugin{create: func(pod *api.PodSandbox, c *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
		if pod.GetNamespace() != "e2e" || c.GetName() != "c" || !slices.Contains(c.GetEnv(), "OLD=1") || len(c.GetArgs()) != 2 ||
			len(pod.GetIps()) != 2 || c.GetLinux().GetCgroupsPath() == "" || c.GetUser() == nil {
			return nil, nil, fmt.Errorf("shown only in part: %v %v", pod, c)
		}
		a, score := &api.ContainerAdjustment{}, 500
		a.RemoveEnv("OLD")
		a.AddEnv("NEW", "2")
		a.AddMount(&api.Mount{Destination: "/extra", Type: "bind", Source: n.path("volumes/extra"), Options: []string{"bind", "ro"}})
		a.AddRlimit("RLIMIT_NOFILE", 100, 50)
		a.SetLinuxMemoryLimit(64 << 20)
		a.SetLinuxOomScoreAdj(&score)
		a.AddAnnotation("adjusted", "yes")
		return a, nil, nil
	}}, "adjuster")
	for _, options := range [][]string{nil, {"userns"}} {
		pod := n.runPodOf(n.podConfig("p"+strings.Join(options, ""), options...))
		config := sleeper("c")
		config.Envs = []*runtimeapi.KeyValue{{Key: "OLD", Value: []byte("1")}}
		id := n.runContainerOf(pod, config)
		n.says(id, "echo $OLD$NEW", "2")
		n.says(id, "cat /extra/word", "from a plugin")
		n.refuses(id, "touch /extra/x", "Read-only")
		n.says(id, "ulimit -n; ulimit -Hn; cat /proc/1/oom_score_adj", "50\n100\n500")
		resp, err := n.runtime.ContainerStatus(n.ctx(), &runtimeapi.ContainerStatusRequest{ContainerId: id, Verbose: true})
		n.check(err)
		for _, want := range []string{`"adjusted":"yes"`, `"limit":67108864`} {
			if !strings.Contains(resp.Info["info"], want) {
				t.Errorf("the configuration does not have %s", want)
			}
		}
	}
}

func TestAnNRIPluginCanRefuseAndNothingIsLeft(t *testing.T) {
	n := started(t)
	refuse := true
	var mu sync.Mutex
	once := func() error {
		mu.Lock()
		defer mu.Unlock()
		if refuse {
			refuse = false
			return errors.New("not today")
		}
		return nil
	}
	p := n.register(&plugin{
		pod: func(event string) error {
			if event != "run" {
				return errors.New("never") // ignored
			}
			return once()
		},
		create: func(*api.PodSandbox, *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
			return nil, nil, once()
		},
	}, "gatekeeper")
	config := n.podConfig("p")
	if err := n.tryPod(config, ""); status.Code(err) != codes.FailedPrecondition || !strings.Contains(messageOf(err), "step plugins") || !strings.Contains(messageOf(err), "not today") {
		t.Errorf("refused pod: %v", err)
	}
	pod := n.runPodOf(config)
	refuse = true
	_, err := n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: sleeper("c")})
	if !strings.Contains(messageOf(err), "step plugins") || !strings.Contains(messageOf(err), "not today") {
		t.Errorf("refused container: %v", err)
	}
	id := n.runContainerOf(pod, sleeper("c"))
	n.endPod(pod)
	n.tells(p, id, "create", "created", "start", "started", "stop", "remove")
}

func TestAnNRIPluginThatDoesNotAnswerStopsNoPodUnlessThePodRequiresIt(t *testing.T) {
	n := started(t)
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	p := n.register(&plugin{create: func(*api.PodSandbox, *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
		<-hang
		return nil, nil, nil
	}}, "sleepy")
	pod := n.runPodOf(n.podConfig("p"))
	n.runContainerOf(pod, sleeper("c"))
	select {
	case <-p.gone:
	case <-time.After(readyTimeout):
		t.Error("a plugin that does not answer was not dropped")
	}
	config := n.podConfig("strict")
	config.Annotations = map[string]string{"required-plugins.noderesource.dev": `["sleepy"]`}
	strict := n.runPodOf(config)
	_, err := n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: strict, Config: sleeper("c")})
	if err == nil || !strings.Contains(messageOf(err), "sleepy") {
		t.Errorf("a container whose pod requires a plugin that is not there: %v", err)
	}
}

// TestALatePluginLearnsOfEachContainerOnce makes containers before, while and after a plugin
// connects. Each must be either in its Synchronize or announced.
func TestALatePluginLearnsOfEachContainerOnce(t *testing.T) {
	n := started(t)
	pod := n.runPodOf(n.podConfig("p"))
	var ids sync.Map
	var creators sync.WaitGroup
	stop := make(chan struct{})
	for worker := range 3 {
		creators.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				resp, err := n.runtime.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{
					PodSandboxId: pod, Config: sleeper(fmt.Sprintf("c%d-%d", worker, i)),
				})
				if err != nil {
					t.Error(err)
					return
				}
				ids.Store(resp.ContainerId, true)
			}
		})
	}
	var plugins []*plugin
	for i := range 4 {
		plugins = append(plugins, n.register(&plugin{synchronize: func() { time.Sleep(200 * time.Millisecond) }}, fmt.Sprint("late", i)))
	}
	before := 0
	ids.Range(func(any, any) bool { before++; return true })
	n.check(n.until("more containers", func() bool {
		now := 0
		ids.Range(func(any, any) bool { now++; return true })
		return now >= before+3
	}))
	close(stop)
	creators.Wait()
	counts := map[string]int{}
	ids.Range(func(id, _ any) bool {
		for i, p := range plugins {
			_, listed := p.containers[id.(string)]
			created := slices.Contains(p.told(id.(string)), "create")
			if listed == created {
				t.Errorf("plugin %d, container %s: in Synchronize %t, announced %t", i, id, listed, created)
			}
			counts[fmt.Sprint(i, " listed ", listed)]++
		}
		return true
	})
	t.Log(counts)
}

func TestAfterARestartAnNRIPluginGetsTheTruth(t *testing.T) {
	n := started(t)
	pod := n.runPodOf(n.podConfig("p"))
	running := n.runContainerOf(pod, sleeper("running"))
	exits := n.runContainerOf(pod, sleeper("exits"))
	first := n.register(&plugin{}, "persistent")
	removed := n.runContainerOf(pod, sleeper("removed"))
	n.end(removed)
	pid := n.pidOf(exits)
	n.kill()
	select {
	case <-first.gone:
	case <-time.After(readyTimeout):
		t.Fatal("the plugin did not notice the daemon's end")
	}
	n.check(syscall.Kill(pid, syscall.SIGKILL)) // pinder notices the end, the daemon does not
	n.launch()
	again := n.register(&plugin{}, "persistent")
	if want := []string{pod}; !slices.Equal(again.pods, want) {
		t.Errorf("pods %v, want %v", again.pods, want)
	}
	want := map[string]api.ContainerState{running: api.ContainerState_CONTAINER_RUNNING, exits: api.ContainerState_CONTAINER_STOPPED}
	if fmt.Sprint(again.containers) != fmt.Sprint(want) {
		t.Errorf("containers %v, want %v", again.containers, want)
	}
	n.endPod(pod)
	n.tells(again, running, "stop", "remove")
	n.tells(again, exits, "remove")
	n.tells(again, pod, "stop", "remove")
}

// pidOf is the container's first process.
func (n *node) pidOf(id string) int {
	n.t.Helper()
	resp, err := n.runtime.ContainerStatus(n.ctx(), &runtimeapi.ContainerStatusRequest{ContainerId: id, Verbose: true})
	n.check(err)
	return n.pidIn(resp.Info["info"])
}

// pidIn is a process ID in verbose information.
func (n *node) pidIn(info string) int {
	n.t.Helper()
	var about struct{ PID int }
	n.check(json.Unmarshal([]byte(info), &about))
	return about.PID
}

func TestWithoutASocketThereIsNoNRI(t *testing.T) {
	n := newNode(t)
	n.flags = []string{"--nri-socket", ""}
	n.launch()
	if _, err := os.Stat(n.path("state", "nri.sock")); !os.IsNotExist(err) {
		t.Errorf("the socket is there: %v", err)
	}
}
