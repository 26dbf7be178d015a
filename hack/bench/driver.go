package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// kind is a kind of pod.
type kind struct {
	userns     bool
	containers int
}

func (k kind) String() string {
	name := "host users"
	if k.userns {
		name = "user namespace"
	}
	return fmt.Sprintf("%s, %d container(s)", name, k.containers)
}

var kinds = []kind{{true, 1}, {false, 1}, {true, 3}}

// pod is one that runs.
type pod struct {
	id         string
	containers []string
}

// sandbox is the configuration of the next pod. Each has a range of IDs of its own, as a kubelet gives them.
func (s *subject) sandbox(k kind, logs string) *runtimeapi.PodSandboxConfig {
	s.number++
	name := fmt.Sprint("bench-", s.number)
	c := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "bench", Uid: name},
		LogDirectory: filepath.Join(logs, name),
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent:    cgroupParent + "/" + name,
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}},
		},
	}
	if k.userns {
		ids := []*runtimeapi.IDMapping{{HostId: uint32(65536 * (10 + s.number%4000)), Length: 65536}}
		c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: ids, Gids: ids}
	}
	return c
}

// timed adds how long f takes.
func timed(samples samples, name string, f func() error) error {
	began := time.Now()
	err := f()
	samples.add(name, time.Since(began))
	return err
}

// makePod starts a pod, and adds the time of each call and of all together.
func (s *subject) makePod(ctx context.Context, k kind, c *runtimeapi.PodSandboxConfig, m samples) (*pod, error) {
	p := &pod{}
	if err := os.MkdirAll(c.LogDirectory, 0o755); err != nil {
		return nil, err
	}
	return p, timed(m, "pod ready", func() error {
		err := timed(m, "RunPodSandbox", func() error {
			r, err := s.cri.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: c})
			p.id = r.GetPodSandboxId()
			return err
		})
		for i := 0; err == nil && i < k.containers; i++ {
			err = s.makeContainer(ctx, p, c, fmt.Sprint("c", i), m)
		}
		return err
	})
}

func (s *subject) makeContainer(ctx context.Context, p *pod, c *runtimeapi.PodSandboxConfig, name string, m samples) error {
	id := ""
	err := timed(m, "CreateContainer", func() error {
		r, err := s.cri.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: p.id, SandboxConfig: c, Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: name}, Image: &runtimeapi.ImageSpec{Image: image}, LogPath: name + ".log",
			Linux: &runtimeapi.LinuxContainerConfig{
				Resources:       &runtimeapi.LinuxContainerResources{CpuShares: 2, OomScoreAdj: 1000},
				SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: c.Linux.SecurityContext.NamespaceOptions},
			},
		}})
		id = r.GetContainerId()
		return err
	})
	if err != nil {
		return err
	}
	p.containers = append(p.containers, id)
	return timed(m, "StartContainer", func() error {
		_, err := s.cri.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: id})
		return err
	})
}

// removePod stops and removes a pod, as a kubelet does.
func (s *subject) removePod(ctx context.Context, p *pod, m samples) error {
	return timed(m, "pod gone", func() error {
		for _, id := range p.containers {
			if _, err := s.cri.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: id}); err != nil {
				return err
			}
		}
		err := timed(m, "StopPodSandbox", func() error {
			_, err := s.cri.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: p.id})
			return err
		})
		if err != nil {
			return err
		}
		for _, id := range p.containers {
			if _, err := s.cri.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: id}); err != nil {
				return err
			}
		}
		return timed(m, "RemovePodSandbox", func() error {
			_, err := s.cri.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p.id})
			return err
		})
	})
}

// makePods starts n pods, so many at a time.
func (s *subject) makePods(ctx context.Context, k kind, n, parallel int, logs string, m samples) ([]*pod, error) {
	configs, pods := make([]*runtimeapi.PodSandboxConfig, n), make([]*pod, n)
	for i := range configs {
		configs[i] = s.sandbox(k, logs)
	}
	return pods, together(n, parallel, func(i int) error {
		var err error
		pods[i], err = s.makePod(ctx, k, configs[i], m)
		return err
	})
}

// together calls f for 0 to n-1, so many at a time, and returns the first error.
func together(n, parallel int, f func(i int) error) error {
	var all sync.WaitGroup
	var once sync.Once
	var first error
	turns := make(chan struct{}, parallel)
	for i := range n {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			if err := f(i); err != nil {
				once.Do(func() { first = err })
			}
		})
	}
	all.Wait()
	return first
}

// measurePods measures starts and ends of pods of one kind.
func (s *subject) measurePods(ctx context.Context, k kind, n, parallel int, logs string, r *result) error {
	m := r.of(s.name, fmt.Sprintf("%s, %d at a time", k, parallel))
	warm, err := s.makePod(ctx, k, s.sandbox(k, logs), samples{})
	if err == nil {
		err = s.removePod(ctx, warm, samples{})
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	cpu, began := machineCPU(), time.Now()
	pods, err := s.makePods(ctx, k, n, parallel, logs, m)
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	m.value("pods a second", float64(n)/time.Since(began).Seconds())
	m.value("CPU ms a pod, start", (machineCPU()-cpu)/float64(n))
	cpu = machineCPU()
	err = together(n, parallel, func(i int) error { return s.removePod(ctx, pods[i], m) })
	m.value("CPU ms a pod, end", (machineCPU()-cpu)/float64(n))
	return err
}

// measureExec measures commands, one at a time and 50 at once.
func (s *subject) measureExec(ctx context.Context, n int, logs string, r *result) error {
	p, err := s.makePod(ctx, kinds[0], s.sandbox(kinds[0], logs), samples{})
	if err != nil {
		return err
	}
	for _, parallel := range []int{1, 50} {
		m := r.of(s.name, fmt.Sprintf("ExecSync of true, %d at a time", parallel))
		command := func(m samples) error {
			return timed(m, "ExecSync", func() error {
				a, err := s.cri.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: p.containers[0], Cmd: []string{"/bin/true"}, Timeout: 60})
				if err == nil && a.GetExitCode() != 0 {
					err = fmt.Errorf("exit code %d: %s", a.GetExitCode(), a.GetStderr())
				}
				return err
			})
		}
		if err := command(samples{}); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		cpu := machineCPU()
		if err := together(n, parallel, func(int) error { return command(m) }); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		m.value("CPU s of 1,000", (machineCPU()-cpu)/float64(n))
	}
	return s.removePod(ctx, p, samples{})
}

// machineCPU is the CPU time of the whole machine in milliseconds, but for what was idle.
func machineCPU() float64 {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(data), "\n")
	total := 0.0
	for i, field := range strings.Fields(line)[1:] {
		const idle, wait, guest = 3, 4, 8 // proc_stat(5); guest time is in user time, too
		var ticks float64
		if i != idle && i != wait && i < guest {
			_, _ = fmt.Sscan(field, &ticks)
			total += ticks * 10
		}
	}
	return total
}
