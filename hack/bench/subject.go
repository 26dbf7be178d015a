package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// subject is a runtime that is measured.
type subject struct {
	name   string
	socket string
	start  func() *exec.Cmd
	images func() *exec.Cmd // loads the image; nil: it is there
	daemon *exec.Cmd
	conn   *grpc.ClientConn
	cri    runtimeapi.RuntimeServiceClient
	number int
}

// subjects are those that can be measured here.
func subjects(o options, t tools, scratch, archive string) ([]*subject, error) {
	var list []*subject
	for i, extra := range [][]string{{}, {"--cni-in-process=false", "--exec-through-runtime=true"}} {
		name := "pinfold"
		if i == 1 {
			name = "pinfold, all programs started"
		}
		s, err := pinfold(name, t, filepath.Join(scratch, fmt.Sprint("p", i)), archive, extra)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	if t.containerd != "" {
		s, err := containerd(t, filepath.Join(scratch, "c"), archive)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	if o.socket != "" {
		list = append(list, &subject{name: o.socket, socket: o.socket})
	}
	return list, nil
}

func pinfold(name string, t tools, dir, archive string, extra []string) (*subject, error) {
	subnet := 20 + len(extra)
	conf, err := network(dir, fmt.Sprint("pfb", subnet), subnet)
	if err != nil {
		return nil, err
	}
	for _, path := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(path, 0o711); err != nil {
			return nil, err
		}
	}
	config := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "s.sock")
	args := append([]string{
		"--config", config, "--root", dir + "/root", "--state", dir + "/run", "--socket", socket, "--netns-dir", dir + "/netns", "--nri-socket", "",
		"--cni-conf-dir", conf, "--cni-bin-dir", t.plugins, "--registry-config-dir", dir + "/hosts", "--runtime", "runc=" + t.runc,
		"--default-runtime", "runc", "--cgroup-driver", "cgroupfs", "--log-level", "WARN", "--pinder", t.bin + "/pinder",
	}, extra...)
	return &subject{
		name: name, socket: socket,
		start:  func() *exec.Cmd { return exec.Command(t.bin+"/pinfoldd", args...) },
		images: func() *exec.Cmd { return exec.Command(t.bin+"/pinfold", "--socket", socket, "image", "load", archive) },
	}, nil
}

func containerd(t tools, dir, archive string) (*subject, error) {
	conf, err := network(dir, "pfb30", 30)
	if err != nil {
		return nil, err
	}
	socket, config := filepath.Join(dir, "s.sock"), filepath.Join(dir, "config.toml")
	text := fmt.Sprintf(`version = 3
root = %q
state = %q
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.nri.v1.nri"]
[grpc]
  address = %q
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = %q
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = [%q]
  conf_dir = %q
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
    BinaryName = %q
`, dir+"/root", dir+"/run", socket, image, t.plugins, conf, t.runc)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, err
	}
	environment := append(os.Environ(), "PATH="+t.containerd+":"+os.Getenv("PATH"))
	return &subject{
		name: "containerd 2.4.2", socket: socket,
		start: func() *exec.Cmd {
			c := exec.Command(t.containerd+"/containerd", "--config", config, "--log-level", "fatal")
			c.Env = environment
			return c
		},
		images: func() *exec.Cmd {
			return exec.Command(t.containerd+"/ctr", "--address", socket, "--namespace", "k8s.io", "images", "import", archive)
		},
	}, nil
}

// open starts the daemon, if it is ours to start, and waits until it answers that it is ready.
func (s *subject) open(ctx context.Context) error {
	if s.start != nil {
		s.daemon = s.start()
		s.daemon.Stderr = os.Stderr
		if err := s.daemon.Start(); err != nil {
			return err
		}
	}
	if s.conn == nil {
		var err error
		s.conn, err = grpc.NewClient("unix://"+s.socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
		if err != nil {
			return err
		}
		s.cri = runtimeapi.NewRuntimeServiceClient(s.conn)
	}
	if err := s.ready(ctx, time.Minute); err != nil {
		return err
	}
	if s.images == nil {
		return nil
	}
	out, err := s.images().CombinedOutput()
	s.images = nil // it is there now
	if err != nil {
		return fmt.Errorf("%s: load the image: %w: %s", s.name, err, out)
	}
	return nil
}

// ready waits for a node that says it is ready.
func (s *subject) ready(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		status, err := s.cri.Status(ctx, &runtimeapi.StatusRequest{}, grpc.WaitForReady(true))
		if err == nil && conditions(status) {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s is not ready: %v, %w", s.name, status, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func conditions(status *runtimeapi.StatusResponse) bool {
	for _, c := range status.GetStatus().GetConditions() {
		if !c.GetStatus() && (c.GetType() == "RuntimeReady" || c.GetType() == "NetworkReady") {
			return false
		}
	}
	return true
}

// close ends the daemon.
func (s *subject) close() {
	if s.daemon != nil {
		_ = s.daemon.Process.Kill()
		_ = s.daemon.Wait()
		s.daemon = nil
	}
}
