package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Seed and length of the soak; make soak SEED=… MINUTES=… sets them. The seed determines what each
// worker and the killer do, but not how the kernel schedules them.
const (
	seedVariable    = "PINFOLD_SOAK_SEED"
	minutesVariable = "PINFOLD_SOAK_MINUTES"
	soakDefault     = 45 * time.Second
)

// soak is many pods at once, random operations, random kills.
type soak struct {
	*node
	seed uint64
	end  time.Time
	// serving is held for writing while the daemon is being replaced.
	serving    sync.RWMutex
	operations atomic.Int64
	kills      [4]int64
}

// victims are what the killer may choose. Daemon and pinder together are not among them: then log
// lines and exit codes are lost; see the crash tests.
var victims = []string{"daemon", "supervisor", "reaper", "daemon and supervisor"}

func TestSoakOfRandomOperationsAndKills(t *testing.T) {
	s := &soak{seed: 1}
	length := soakDefault
	if text := os.Getenv(seedVariable); text != "" {
		s.seed, _ = strconv.ParseUint(text, 10, 64)
	}
	if minutes, err := strconv.ParseFloat(os.Getenv(minutesVariable), 64); err == nil {
		length = time.Duration(minutes * float64(time.Minute))
	}
	s.node = started(t)
	s.end = time.Now().Add(length)
	var workers sync.WaitGroup
	all := make([]*soakWorker, 5)
	for i := range all {
		all[i] = &soakWorker{soak: s, name: fmt.Sprintf("w%d", i), random: rand.New(rand.NewPCG(s.seed, uint64(i)))}
		workers.Go(all[i].work)
	}
	var killer sync.WaitGroup
	done := make(chan struct{})
	killer.Go(func() { s.killUntil(done) })
	workers.Wait()
	close(done)
	killer.Wait()
	for _, w := range all {
		w.verify()
	}
	t.Logf("seed %d: %d operations in %s, kills: %d daemon, %d supervisor, %d reaper, %d daemon and supervisor",
		s.seed, s.operations.Load(), length, s.kills[0], s.kills[1], s.kills[2], s.kills[3])
}

// killUntil kills at random moments until the workers have ended.
func (s *soak) killUntil(done chan struct{}) {
	random := rand.New(rand.NewPCG(s.seed, 1<<32))
	for {
		select {
		case <-done:
			return
		case <-time.After(time.Duration(200+random.IntN(1800)) * time.Millisecond):
		}
		victim := random.IntN(len(victims))
		s.kills[victim]++
		s.killOne(victims[victim])
	}
}

func (s *soak) killOne(victim string) {
	switch victim {
	case "supervisor":
		s.killProcess("supervise")
	case "reaper":
		s.killProcess("pinder --state")
	default:
		if victim != "daemon" {
			s.killProcess("supervise")
		}
		s.kill()
		s.serving.Lock()
		defer s.serving.Unlock()
		s.launch()
	}
}

// killProcess kills the process of this node whose command line has that text.
func (s *soak) killProcess(text string) {
	for _, line := range s.processes() {
		var pid int
		if _, err := fmt.Sscanf(line, "process %d:", &pid); err == nil && strings.Contains(line, text) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			return
		}
	}
}

// soakWorker does random operations on its own pods, and remembers what must be true of them.
type soakWorker struct {
	*soak
	name   string
	random *rand.Rand
	count  int
	pods   []*soakPod
}

type soakPod struct {
	id, name   string
	config     *runtimeapi.PodSandboxConfig
	ip         string
	containers []*soakContainer
}

type soakContainer struct {
	id, log string
	config  *runtimeapi.ContainerConfig
	// code is its exit code; -1 for a container that runs until it is stopped.
	code int32
}

func (w *soakWorker) work() {
	for time.Now().Before(w.end) && !w.t.Failed() {
		switch w.random.IntN(10) {
		case 0, 1:
			if len(w.pods) < 3 {
				w.addPod()
			}
		case 2, 3, 4:
			w.withPod((*soakWorker).addContainer)
		case 5:
			w.withPod((*soakWorker).exec)
		case 6:
			w.withPod((*soakWorker).dropContainer)
		case 7, 8:
			w.verify()
		case 9:
			if len(w.pods) > 1 {
				w.dropPod()
			}
		}
		w.operations.Add(1)
	}
}

func (w *soakWorker) withPod(do func(*soakWorker, *soakPod)) {
	if len(w.pods) > 0 {
		do(w, w.pods[w.random.IntN(len(w.pods))])
	}
}

// call sends a request until it gets an answer. Clients repeat requests when the daemon was killed.
func (w *soakWorker) call(what string, request func(ctx context.Context) error) {
	for limit := time.Now().Add(4 * readyTimeout); ; {
		w.serving.RLock()
		ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
		err := request(ctx)
		cancel()
		w.serving.RUnlock()
		if err == nil {
			return
		}
		if c := status.Code(err); (c != codes.Unavailable && c != codes.Canceled) || time.Now().After(limit) || w.t.Failed() {
			w.t.Errorf("%s: %s: %v", w.name, what, err)
			return
		}
	}
}

func (w *soakWorker) addPod() {
	w.count++
	kinds := []string{"userns", "", "shared-pid"}
	p := &soakPod{name: fmt.Sprintf("%s-%d", w.name, w.count)}
	p.config = w.podConfig(p.name, kinds[w.random.IntN(len(kinds))])
	w.call("RunPodSandbox", func(ctx context.Context) error {
		resp, err := w.runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: p.config})
		p.id = resp.GetPodSandboxId()
		return err
	})
	if p.id != "" {
		w.pods = append(w.pods, p)
	}
}

func (w *soakWorker) addContainer(p *soakPod) {
	if len(p.containers) >= 4 {
		return
	}
	w.count++
	name := fmt.Sprintf("c%d", w.count)
	c := &soakContainer{code: -1, log: w.path("logs", p.name, name+".log")}
	c.config = containerConfig(name, "sh", "-c", "n=0; while :; do n=$((n+1)); echo $n; sleep 0.02; done")
	if w.random.IntN(2) == 0 {
		c.code = int32(w.random.IntN(100))
		c.config.Command[2] = fmt.Sprintf("echo 1; sleep 0.%d; echo 2; exit %d", w.random.IntN(9), c.code)
	}
	w.call("CreateContainer", func(ctx context.Context) error {
		resp, err := w.runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: p.id, Config: c.config})
		c.id = resp.GetContainerId()
		return err
	})
	if c.id == "" {
		return
	}
	w.call("StartContainer", func(ctx context.Context) error {
		_, err := w.runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: c.id})
		if status.Code(err) == codes.FailedPrecondition && c.code >= 0 {
			return nil // the first request started it, and it has ended
		}
		return err
	})
	p.containers = append(p.containers, c)
}

// exec runs a command in a container that runs for ever. An exec ends with the supervisor and is
// not repeated, so only the answer is checked.
func (w *soakWorker) exec(p *soakPod) {
	for _, c := range p.containers {
		if c.code >= 0 {
			continue
		}
		w.call("ExecSync", func(ctx context.Context) error {
			resp, err := w.runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: c.id, Cmd: []string{"echo", "here"}, Timeout: 20})
			if err == nil && string(resp.Stdout) != "here\n" {
				w.t.Errorf("%s: exec answered %q", w.name, resp.Stdout)
			}
			return err
		})
		return
	}
}

func (w *soakWorker) dropContainer(p *soakPod) {
	if len(p.containers) == 0 {
		return
	}
	i := w.random.IntN(len(p.containers))
	c := p.containers[i]
	if w.random.IntN(2) == 0 {
		w.call("StopContainer", func(ctx context.Context) error {
			_, err := w.runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: c.id, Timeout: 0})
			return err
		})
	}
	w.call("RemoveContainer", func(ctx context.Context) error {
		_, err := w.runtime.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: c.id})
		return err
	})
	p.containers = slices.Delete(p.containers, i, i+1)
	w.checkLog(c)
}

func (w *soakWorker) dropPod() {
	i := w.random.IntN(len(w.pods))
	p := w.pods[i]
	if w.random.IntN(2) == 0 {
		w.call("StopPodSandbox", func(ctx context.Context) error {
			_, err := w.runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: p.id})
			return err
		})
	}
	w.call("RemovePodSandbox", func(ctx context.Context) error {
		_, err := w.runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p.id})
		return err
	})
	w.pods = slices.Delete(w.pods, i, i+1)
	for _, c := range p.containers {
		w.checkLog(c)
	}
}

// verify checks everything of the worker: ready with the same address, running or ended as
// expected.
func (w *soakWorker) verify() {
	for _, p := range w.pods {
		w.call("PodSandboxStatus", func(ctx context.Context) error {
			resp, err := w.runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: p.id})
			if err != nil {
				return err
			}
			w.judgePod(p, resp)
			return nil
		})
		for _, c := range p.containers {
			w.checkLog(c)
		}
	}
}

func (w *soakWorker) judgePod(p *soakPod, resp *runtimeapi.PodSandboxStatusResponse) {
	s := resp.Status
	if s.State != runtimeapi.PodSandboxState_SANDBOX_READY {
		w.t.Errorf("%s: pod %s (%s) is %s", w.name, p.name, p.id, s.State)
	}
	if p.ip == "" {
		p.ip = s.Network.Ip
	}
	if s.Network.Ip != p.ip {
		w.t.Errorf("%s: pod %s (%s) has the address %q, had %q", w.name, p.name, p.id, s.Network.Ip, p.ip)
	}
	for _, c := range p.containers {
		i := slices.IndexFunc(resp.ContainersStatuses, func(x *runtimeapi.ContainerStatus) bool { return x.Id == c.id })
		if i < 0 {
			w.t.Errorf("%s: container %s of pod %s is lost", w.name, c.id, p.name)
			continue
		}
		got := resp.ContainersStatuses[i]
		exited := got.State == runtimeapi.ContainerState_CONTAINER_EXITED
		if (c.code < 0 && exited) || (exited && got.ExitCode != c.code) {
			w.t.Errorf("%s: container %s is %s with exit code %d (%s %s), want %d (-1: running)", w.name, c.id, got.State, got.ExitCode, got.Reason, got.Message, c.code)
		}
	}
}

// checkLog finds lost and doubled lines, since each container counts. It returns the number of
// lines.
func (w *soakWorker) checkLog(c *soakContainer) int {
	data, err := os.ReadFile(filepath.Clean(c.log))
	if err != nil {
		w.t.Errorf("%s: %v", w.name, err)
		return 0
	}
	n, part := 0, ""
	for line := range strings.Lines(string(data)) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if !strings.HasSuffix(line, "\n") || len(fields) != 4 {
			break // being written
		}
		if fields[2] == "P" {
			part += fields[3]
			continue
		}
		n++
		if part+fields[3] != strconv.Itoa(n) {
			w.t.Errorf("%s: line %d of %s is %q", w.name, n, c.log, line)
			return n
		}
		part = ""
	}
	return n
}
