package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// measureCrowd measures a node with many pods.
func (s *subject) measureCrowd(ctx context.Context, n int, logs string, r *result) error {
	m := r.of(s.name, fmt.Sprintf("%d pods", n))
	before := footprint()
	pods, err := s.makePods(ctx, kinds[0], n, 4, logs, samples{})
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	after := footprint()
	m.value("memory a pod, MiB PSS", (after.memory-before.memory)/float64(n)/1024)
	m.value("descriptors a pod", (after.descriptors-before.descriptors)/float64(n))
	if err := s.ask(ctx, 10, m); err != nil {
		return err
	}
	if s.daemon != nil {
		if err := s.poll(ctx, 20, m); err != nil {
			return err
		}
		if err := s.restart(ctx, n, m); err != nil {
			return err
		}
	}
	return together(n, 4, func(i int) error { return s.removePod(ctx, pods[i], samples{}) })
}

// ask measures lists and statistics.
func (s *subject) ask(ctx context.Context, times int, m samples) error {
	for name, call := range map[string]func() error{
		"ListPodSandbox": func() error {
			_, err := s.cri.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
			return err
		},
		"ListContainers": func() error {
			_, err := s.cri.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
			return err
		},
		"ListPodSandboxStats": func() error {
			_, err := s.cri.ListPodSandboxStats(ctx, &runtimeapi.ListPodSandboxStatsRequest{})
			return err
		},
	} {
		for range times {
			if err := timed(m, name, call); err != nil {
				return fmt.Errorf("%s: %s: %w", s.name, name, err)
			}
		}
	}
	return nil
}

// poll asks once a second what a kubelet asks, and measures the daemon's CPU.
func (s *subject) poll(ctx context.Context, seconds int, m samples) error {
	began, cpu := time.Now(), processCPU(s.daemon.Process.Pid)
	for range seconds {
		next := time.After(time.Second)
		if _, err := s.cri.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{}); err != nil {
			return err
		}
		if _, err := s.cri.ListContainers(ctx, &runtimeapi.ListContainersRequest{}); err != nil {
			return err
		}
		if _, err := s.cri.Status(ctx, &runtimeapi.StatusRequest{}); err != nil {
			return err
		}
		<-next
	}
	m.value("CPU of the polled daemon, %", (processCPU(s.daemon.Process.Pid)-cpu)/float64(time.Since(began).Milliseconds())*100)
	return nil
}

// restart kills the daemon, starts it, and waits for the first answer that has all pods.
func (s *subject) restart(ctx context.Context, n int, m samples) error {
	s.close()
	began := time.Now()
	s.daemon = s.start()
	s.daemon.Stderr = os.Stderr
	if err := s.daemon.Start(); err != nil {
		return err
	}
	for time.Since(began) < time.Minute {
		short, cancel := context.WithTimeout(ctx, time.Second)
		list, err := s.cri.ListPodSandbox(short, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{State: &runtimeapi.PodSandboxStateValue{}}})
		cancel()
		if err == nil && len(list.GetItems()) >= n {
			m.value("restart after kill -9, s", time.Since(began).Seconds())
			return nil
		}
		s.conn.ResetConnectBackoff()
		time.Sleep(2 * time.Millisecond)
	}
	return fmt.Errorf("%s: not all pods are there a minute after the restart", s.name)
}

// use is what processes use.
type use struct{ memory, descriptors float64 }

// footprint is what all processes of our PID namespace use, but for ourselves and the pods' own programs.
func footprint() use {
	var u use
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if name, _ := os.ReadFile("/proc/" + e.Name() + "/comm"); strings.TrimSpace(string(name)) == "sleep" {
			continue
		}
		data, err := os.ReadFile("/proc/" + e.Name() + "/smaps_rollup")
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
				var kib float64
				_, _ = fmt.Sscan(rest, &kib)
				u.memory += kib
			}
		}
		fds, _ := os.ReadDir("/proc/" + e.Name() + "/fd")
		u.descriptors += float64(len(fds))
	}
	return u
}

// processCPU is the CPU time of a process in milliseconds.
func processCPU(pid int) float64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	var user, system float64
	_, _ = fmt.Sscan(fields[11]+" "+fields[12], &user, &system)
	return (user + system) * 10
}
