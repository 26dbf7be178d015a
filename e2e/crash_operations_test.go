package e2e

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// subject is the pod of one case of the matrix, with its container.
type subject struct {
	*crashNode
	name           string
	options        []string
	pod, container string
	// mute: the daemon and both processes of pinder were killed together, so nothing read the
	// container's output. Output and exit code since then may be lost.
	mute bool
	// replaced: a second container writes to the same log.
	replaced bool
}

// operation is an operation that may be interrupted anywhere.
type operation struct {
	name    string
	options []string
	// prepare does what comes before the operation. runs is true if a container runs then, or soon
	// after.
	prepare func(s *subject) error
	runs    bool
	// act is the request. It may be repeated after the first one failed.
	act func(s *subject) error
	// holds checks what must be true after act has returned nil.
	holds func(s *subject) error
	// fails is a fail point that makes the operation undo its steps, if the undo is to be
	// interrupted.
	fails string
}

func operations() []operation {
	userns := []string{"userns"}
	return []operation{
		{name: "run pod", options: userns, act: (*subject).runPod, holds: (*subject).podReady},
		{name: "run pod with PID 1", options: []string{"userns", "shared-pid"}, act: (*subject).runPod, holds: (*subject).podReady},
		{name: "run pod, undone", options: []string{"userns", "shared-pid"}, act: (*subject).runPod, holds: (*subject).podReady, fails: "RunPodSandbox:ready:before"},
		{name: "create", options: userns, prepare: (*subject).runPod, act: (*subject).create, holds: (*subject).oneContainer},
		{name: "create, undone", options: userns, prepare: (*subject).runPod, act: (*subject).create, holds: (*subject).oneContainer, fails: "CreateContainer:created:before"},
		{name: "start", runs: true, options: userns, prepare: (*subject).created, act: (*subject).startOrReplace, holds: (*subject).talks},
		{name: "exit", runs: true, options: userns, prepare: (*subject).started, act: (*subject).exits, holds: exited(7)},
		{name: "stop", runs: true, options: userns, prepare: (*subject).started, act: (*subject).stop, holds: exited(5)},
		{name: "remove", runs: true, options: userns, prepare: (*subject).started, act: (*subject).remove, holds: (*subject).noContainer},
		{name: "stop pod", runs: true, options: userns, prepare: (*subject).started, act: (*subject).stopPod, holds: (*subject).podStopped},
		{name: "remove pod", runs: true, options: userns, prepare: (*subject).started, act: (*subject).removePod, holds: (*subject).noPod},
		{name: "remove pod with PID 1", runs: true, options: []string{"userns", "shared-pid"}, prepare: (*subject).started, act: (*subject).removePod, holds: (*subject).noPod},
	}
}

func (s *subject) runPod() error {
	resp, err := s.runtime.RunPodSandbox(s.ctx(), &runtimeapi.RunPodSandboxRequest{Config: s.podConfig(s.name, s.options...)})
	if err == nil {
		s.pod = resp.PodSandboxId
	}
	return err
}

// script prints a word, exits with 5 on SIGTERM, and with 7 if a file appears.
const script = `trap "echo bye; exit 5" TERM; echo hello; while [ ! -e /go ]; do sleep 0.02; done; echo bye; exit 7`

func (s *subject) create() error {
	resp, err := s.runtime.CreateContainer(s.ctx(), &runtimeapi.CreateContainerRequest{
		PodSandboxId: s.pod, Config: containerConfig("c", "sh", "-c", script),
	})
	if err == nil {
		s.container = resp.ContainerId
	}
	return err
}

func (s *subject) created() error { return errors.Join(s.runPod(), s.create()) }

func (s *subject) start() error {
	_, err := s.runtime.StartContainer(s.ctx(), &runtimeapi.StartContainerRequest{ContainerId: s.container})
	return err
}

// startOrReplace does what the kubelet does: if the start of a container failed, the container has
// ended, and another one replaces it.
func (s *subject) startOrReplace() error {
	err := s.start()
	if status.Code(err) != codes.FailedPrecondition {
		return err
	}
	got, statusErr := s.containerStatus(s.container)
	if got.GetReason() != "StartError" {
		return errors.Join(err, statusErr)
	}
	s.replaced = true
	return errors.Join(s.remove(), s.create(), s.start())
}

func (s *subject) started() error {
	if err := errors.Join(s.created(), s.start()); err != nil {
		return err
	}
	return s.talks()
}

// exits makes the container exit and waits until CRI says so.
func (s *subject) exits() error {
	_, execErr := s.runtime.ExecSync(s.ctx(), &runtimeapi.ExecSyncRequest{ContainerId: s.container, Cmd: []string{"touch", "/go"}})
	var err error
	waitErr := s.until("the end of the container", func() bool {
		var status *runtimeapi.ContainerStatus
		status, err = s.containerStatus(s.container)
		return err != nil || status.State == runtimeapi.ContainerState_CONTAINER_EXITED
	})
	if err == nil && waitErr != nil {
		return errors.Join(waitErr, execErr)
	}
	return err
}

func (s *subject) stop() error {
	_, err := s.runtime.StopContainer(s.ctx(), &runtimeapi.StopContainerRequest{ContainerId: s.container, Timeout: 30})
	return err
}

func (s *subject) remove() error {
	_, err := s.runtime.RemoveContainer(s.ctx(), &runtimeapi.RemoveContainerRequest{ContainerId: s.container})
	return err
}

func (s *subject) stopPod() error {
	_, err := s.runtime.StopPodSandbox(s.ctx(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: s.pod})
	return err
}

func (s *subject) removePod() error {
	_, err := s.runtime.RemovePodSandbox(s.ctx(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: s.pod})
	return err
}

// pods are the pods with the subject's name, in any state.
func (s *subject) pods() ([]*runtimeapi.PodSandbox, error) {
	list, err := s.runtime.ListPodSandbox(s.ctx(), &runtimeapi.ListPodSandboxRequest{})
	var mine []*runtimeapi.PodSandbox
	for _, pod := range list.GetItems() {
		if pod.Metadata.Name == s.name {
			mine = append(mine, pod)
		}
	}
	return mine, err
}

// podReady: there is one pod of that name. It is ready and has addresses. Leftovers of an
// interrupted request disappear soon.
func (s *subject) podReady() error {
	var pods []*runtimeapi.PodSandbox
	err := s.until("one pod of that name", func() bool {
		pods, _ = s.pods()
		return len(pods) == 1
	})
	if err != nil {
		return fmt.Errorf("%w: %v", err, pods)
	}
	if pods[0].Id != s.pod {
		return fmt.Errorf("the request gave pod %s, but %s is listed", s.pod, pods[0].Id)
	}
	ips, err := s.addresses(s.pod)
	if err == nil && len(ips) != 2 {
		err = fmt.Errorf("addresses: %v", ips)
	}
	if err != nil {
		return err
	}
	// The pod can run a container.
	if err := errors.Join(s.create(), s.start()); err != nil {
		return fmt.Errorf("a container in it: %w", err)
	}
	return s.talks()
}

func (s *subject) podStopped() error {
	pods, err := s.pods()
	if err != nil {
		return err
	}
	if len(pods) != 1 || pods[0].State != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
		return fmt.Errorf("after the stop: %v", pods)
	}
	return exited(137)(s)
}

func (s *subject) noPod() error {
	pods, err := s.pods()
	if err == nil && len(pods) > 0 {
		err = fmt.Errorf("after the removal: %v", pods)
	}
	return err
}

func (s *subject) listed() ([]*runtimeapi.Container, error) {
	list, err := s.runtime.ListContainers(s.ctx(), &runtimeapi.ListContainersRequest{
		Filter: &runtimeapi.ContainerFilter{PodSandboxId: s.pod},
	})
	return list.GetContainers(), err
}

func (s *subject) noContainer() error {
	list, err := s.listed()
	if err == nil && len(list) > 0 {
		err = fmt.Errorf("after the removal: %v", list)
	}
	return err
}

// oneContainer: one container is listed, it is the requested one, and it can be started.
func (s *subject) oneContainer() error {
	var list []*runtimeapi.Container
	err := s.until("one container", func() bool {
		list, _ = s.listed()
		return len(list) == 1
	})
	if err != nil || list[0].Id != s.container || list[0].State != runtimeapi.ContainerState_CONTAINER_CREATED {
		return fmt.Errorf("%w: want container %s, created: %v", err, s.container, list)
	}
	if err := s.start(); err != nil {
		return err
	}
	return s.talks()
}

func (s *subject) said() string { return readLog(s.path("logs", s.name, "c.log")) }

// talks: the container runs and has printed its word once.
func (s *subject) talks() error {
	status, err := s.containerStatus(s.container)
	if err != nil {
		return err
	}
	if status.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return fmt.Errorf("the container is %s (%d, %s, %s)", status.State, status.ExitCode, status.Reason, status.Message)
	}
	if s.mute {
		return nil
	}
	err = s.until("the container's word", func() bool { return strings.Contains(s.said(), "hello\n") })
	if said := s.said(); err != nil || strings.Count(said, "hello") != 1 && !s.replaced {
		return fmt.Errorf("the container's log: %w: %q", err, said)
	}
	return nil
}

// exited: the container has ended with that code, and its last output is in the log once.
func exited(code int32) func(s *subject) error {
	return func(s *subject) error {
		got, err := s.containerStatus(s.container)
		if err != nil {
			return err
		}
		if got.State == runtimeapi.ContainerState_CONTAINER_EXITED && s.mute {
			return nil
		}
		if got.State != runtimeapi.ContainerState_CONTAINER_EXITED || got.ExitCode != code {
			return fmt.Errorf("the container is %s with code %d (%s, %s), want exited with %d",
				got.State, got.ExitCode, got.Reason, got.Message, code)
		}
		want := "stdout F hello\nstdout F bye\n"
		if code == 137 {
			want = "stdout F hello\n"
		}
		if said := s.said(); said != want {
			return fmt.Errorf("the container's log: %q, want %q", said, want)
		}
		return nil
	}
}

// removePods removes every pod with the subject's name.
func (s *subject) removePods() error {
	limit := time.Now().Add(readyTimeout)
	for {
		pods, err := s.pods()
		if err == nil && len(pods) == 0 {
			return nil
		}
		for _, pod := range pods {
			_, rmErr := s.runtime.RemovePodSandbox(s.ctx(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod.Id})
			err = errors.Join(err, rmErr)
		}
		if err != nil || time.Now().After(limit) {
			return fmt.Errorf("remove the subject: %w (%d pods)", err, len(pods))
		}
	}
}
