package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Pods that this command made carry these, so that the other commands know them.
const (
	podNamespace  = "pinfold"
	logAnnotation = "run.pinfold/log-directory"
	containerLog  = "container.log"
)

// runOptions are the flags of pinfold run.
type runOptions struct {
	name        string
	userns      bool
	usernsRange string
	keep        bool
	hostNetwork bool
	pull        bool
	handler     string
	logDir      string
	image       string
	command     []string
}

func parseRun(args []string) (*runOptions, error) {
	before, command := splitCommand(args)
	o := &runOptions{command: command}
	flags := flag.NewFlagSet("pinfold run", flag.ContinueOnError)
	flags.StringVar(&o.name, "name", "", "name of the pod; default one made up")
	flags.BoolVar(&o.userns, "userns", false, "give the pod a user namespace of its own")
	flags.StringVar(&o.usernsRange, "userns-range", defaultRange, "`FIRST:COUNT` of host ids for --userns where /etc/subuid names none for pinfold or root")
	flags.BoolVar(&o.keep, "keep", false, "return when the container runs, and leave the pod")
	flags.BoolVar(&o.hostNetwork, "host-network", false, "use the node's network")
	flags.BoolVar(&o.pull, "pull", false, "pull the image even if it is on the node")
	flags.StringVar(&o.handler, "runtime", "", "runtime handler; default the daemon's")
	flags.StringVar(&o.logDir, "log-dir", "", "where the log goes; default a directory below "+os.TempDir())
	if err := flags.Parse(before); err != nil {
		return nil, err
	}
	if flags.NArg() != 1 {
		return nil, errors.New("run: name one image; a command goes behind --")
	}
	o.image = flags.Arg(0)
	if o.name == "" {
		o.name = "pod-" + rand.Text()[:8]
	}
	return o, nil
}

func run(ctx context.Context, t *tool, args []string) error {
	o, err := parseRun(args)
	if err != nil {
		return err
	}
	n, err := t.connect()
	if err != nil {
		return err
	}
	defer n.close()
	if err := n.ensureImage(ctx, o.image, o.pull); err != nil {
		return err
	}
	sandbox, err := o.sandbox(ctx, n)
	if err != nil {
		return err
	}
	pod, err := n.runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: sandbox, RuntimeHandler: o.handler})
	if err != nil {
		return errors.Join(err, os.RemoveAll(sandbox.LogDirectory))
	}
	id, err := o.start(ctx, n, pod.PodSandboxId, sandbox)
	if err == nil && o.keep {
		fmt.Fprintln(t.out, pod.PodSandboxId)
		return nil
	}
	if err == nil {
		err = n.follow(ctx, t, id)
	}
	// The pod goes whatever ended the wait, an interrupt included.
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
	defer cancel()
	return errors.Join(err, n.removePod(clean, pod.PodSandboxId))
}

// cleanTimeout bounds the removal of the pod at the end.
const cleanTimeout = 2 * time.Minute

func (o *runOptions) start(ctx context.Context, n *node, pod string, sandbox *runtimeapi.PodSandboxConfig) (string, error) {
	created, err := n.runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId:  pod,
		SandboxConfig: sandbox,
		Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: o.name},
			Image:    &runtimeapi.ImageSpec{Image: o.image},
			Command:  o.command,
			LogPath:  containerLog,
			Linux:    &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: o.namespaces(sandbox)}},
		},
	})
	if err != nil {
		return "", err
	}
	_, err = n.runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: created.ContainerId})
	return created.ContainerId, err
}

func (o *runOptions) namespaces(sandbox *runtimeapi.PodSandboxConfig) *runtimeapi.NamespaceOption {
	return sandbox.GetLinux().GetSecurityContext().GetNamespaceOptions()
}

func (o *runOptions) sandbox(ctx context.Context, n *node) (*runtimeapi.PodSandboxConfig, error) {
	options := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}
	if o.hostNetwork {
		options.Network = runtimeapi.NamespaceMode_NODE
	}
	if o.userns {
		taken, err := n.takenRanges(ctx)
		if err != nil {
			return nil, err
		}
		if options.UsernsOptions, err = chooseRange(o.usernsRange, taken); err != nil {
			return nil, err
		}
	}
	dir, err := o.makeLogDir()
	if err != nil {
		return nil, err
	}
	config := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: o.name, Namespace: podNamespace, Uid: rand.Text()},
		LogDirectory: dir,
		Annotations:  map[string]string{logAnnotation: dir},
		Linux:        &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: options}},
	}
	if !o.hostNetwork {
		config.Hostname = o.name
	}
	return config, nil
}

func (o *runOptions) makeLogDir() (string, error) {
	if o.logDir == "" {
		return os.MkdirTemp("", "pinfold-"+o.name+"-")
	}
	dir, err := filepath.Abs(filepath.Join(o.logDir, o.name))
	if err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o700)
}

func (n *node) ensureImage(ctx context.Context, name string, always bool) error {
	spec := &runtimeapi.ImageSpec{Image: name}
	if !always {
		found, err := n.images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: spec})
		if err != nil || found.Image != nil {
			return err
		}
	}
	_, err := n.images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: spec})
	return err
}
