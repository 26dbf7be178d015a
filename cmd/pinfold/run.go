package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/ocispec"
)

// These are the same for all pods of this command. A kubelet's pod may have the same names: they do
// not identify a pod of this command.
const (
	podNamespace  = "pinfold"
	containerLog  = "container.log"
	ownLabel      = "run.pinfold/made-by"
	ownLabelValue = "pinfold-run"
)

// runOptions are the flags of pinfold run.
type runOptions struct {
	name        string
	hostUsers   bool
	usernsRange string
	keep        bool
	hostNetwork bool
	pull        bool
	handler     string
	logDir      string
	image       string
	command     []string
}

func runCommand(t *tool) *cobra.Command {
	o := &runOptions{}
	cmd := &cobra.Command{
		Use:   "run [FLAGS] IMAGE [-- COMMAND [ARG]...]",
		Short: "Run one container in a new pod, and remove the pod at its end",
		Long:  `Run one container in a new pod, confined and in a user namespace. Its output is shown, its exit code returned, and the pod removed.`,
		Example: `  pinfold run docker.io/library/busybox:latest -- id
  pinfold run --keep --name web registry.example/web:1`,
		Args:              wants(1, -1, "one image, and after -- the command"),
		ValidArgsFunction: t.completer(1, imageNames),
	}
	o.addTo(cmd.Flags())
	cmd.RunE = t.does(func(ctx context.Context, t *tool, args []string) error {
		if err := o.take(cmd.Flags(), args); err != nil {
			return err
		}
		return run(ctx, t, o)
	})
	return cmd
}

func (o *runOptions) addTo(flags *pflag.FlagSet) {
	flags.StringVar(&o.name, "name", "", "name of the pod (default: a random one)")
	flags.BoolVar(&o.hostUsers, "host-users", false, "use the node's own user ids: no user namespace, so root in the pod is the node's root")
	flags.Bool("userns", true, "give the pod a user namespace of its own (the default); the opposite of --host-users")
	flags.StringVar(&o.usernsRange, "userns-range", defaultRange, "`FIRST:COUNT` of host ids for the user namespace, used if /etc/subuid has no line for pinfold or root")
	flags.BoolVar(&o.keep, "keep", false, "return when the container runs, and keep the pod")
	flags.BoolVar(&o.hostNetwork, "host-network", false, "use the node's network")
	flags.BoolVar(&o.pull, "pull", false, "pull the image even if it is on the node")
	flags.StringVar(&o.handler, "runtime", "", "runtime handler (default: that of the daemon)")
	flags.StringVar(&o.logDir, "log-dir", "", "directory for the log (default: a new one in "+os.TempDir()+")")
}

// take checks the flags and takes the arguments.
func (o *runOptions) take(flags *pflag.FlagSet, args []string) error {
	o.image, o.command = args[0], args[1:]
	userns, err := flags.GetBool("userns")
	if err != nil {
		return err
	}
	switch {
	case flags.Changed("host-users") && flags.Changed("userns") && o.hostUsers == userns:
		return misuse("run: --host-users=%t and --userns=%t contradict each other", o.hostUsers, userns)
	case flags.Changed("userns"):
		o.hostUsers = !userns
	}
	if !flags.Changed("name") {
		o.name = "pod-" + rand.Text()[:8]
	}
	// The name is also used for a directory.
	if o.name == "" || o.name == "." || o.name == ".." || strings.ContainsAny(o.name, "/\x00") {
		return misuse("run: --name %q cannot be the name of a directory", o.name)
	}
	return nil
}

func run(ctx context.Context, t *tool, o *runOptions) error {
	n, err := t.connect(ctx)
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
		return errors.Join(o.explain(err), removeLog(sandbox.LogDirectory))
	}
	var id string
	if err = n.logs.remember(pod.PodSandboxId, sandbox.LogDirectory); err != nil {
		err = errors.Join(err, removeLog(sandbox.LogDirectory))
	} else {
		id, err = o.start(ctx, n, pod.PodSandboxId, sandbox)
	}
	if err == nil && o.keep {
		fmt.Fprintln(t.out, pod.PodSandboxId)
		return nil
	}
	if err == nil {
		err = n.follow(ctx, t, id, &logOptions{tail: -1})
	}
	// Remove the pod whatever ended the wait, also after an interrupt.
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
	defer cancel()
	return errors.Join(err, n.removePod(clean, pod.PodSandboxId))
}

// cleanTimeout limits the removal of the pod at the end.
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
			Linux:    &runtimeapi.LinuxContainerConfig{SecurityContext: confined(sandbox)},
		},
	})
	if err != nil {
		return "", err
	}
	_, err = n.runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: created.ContainerId})
	return created.ContainerId, err
}

// confined is the security context of the container. CRI does not restrict what a request leaves
// out, so this names every restriction. (AppArmor is the exception: a node that has a default
// profile applies it.)
func confined(sandbox *runtimeapi.PodSandboxConfig) *runtimeapi.LinuxContainerSecurityContext {
	return &runtimeapi.LinuxContainerSecurityContext{
		NamespaceOptions: sandbox.GetLinux().GetSecurityContext().GetNamespaceOptions(),
		Seccomp:          &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
		MaskedPaths:      ocispec.DefaultMaskedPaths(),
		ReadonlyPaths:    ocispec.DefaultReadonlyPaths(),
	}
}

// withoutUserNS tells the operator what to do if the pod cannot have a user namespace.
const withoutUserNS = "--host-users runs the pod without a user namespace"

// explain adds the likely reason: some nodes cannot give a user namespace to a pod on the node's
// network.
func (o *runOptions) explain(err error) error {
	if o.hostUsers || !o.hostNetwork {
		return err
	}
	return fmt.Errorf("%s (with --host-network; %s)", status.Convert(err).Message(), withoutUserNS)
}

// chooseUserNS chooses the ids of the pod's user namespace. If there are none, it fails: the
// pod never runs without a user namespace.
func (o *runOptions) chooseUserNS(ctx context.Context, n *node) (*runtimeapi.UserNamespace, error) {
	s, err := n.runtime.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return nil, err
	}
	for _, h := range s.RuntimeHandlers {
		if h.Name == o.handler && !h.GetFeatures().GetUserNamespaces() {
			return nil, fmt.Errorf("run: this node or its OCI runtime cannot give a pod a user namespace (pinfold status says what is missing); %s", withoutUserNS)
		}
	}
	taken, err := n.takenRanges(ctx)
	if err != nil {
		return nil, err
	}
	ids, err := chooseRange(o.usernsRange, taken)
	if err != nil {
		return nil, fmt.Errorf("run: %w; %s", err, withoutUserNS)
	}
	return ids, nil
}

func (o *runOptions) sandbox(ctx context.Context, n *node) (*runtimeapi.PodSandboxConfig, error) {
	options := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}
	if o.hostNetwork {
		options.Network = runtimeapi.NamespaceMode_NODE
	}
	if !o.hostUsers {
		var err error
		if options.UsernsOptions, err = o.chooseUserNS(ctx, n); err != nil {
			return nil, err
		}
	}
	if err := n.logs.prepare(); err != nil {
		return nil, err
	}
	dir, err := o.makeLogDir()
	if err != nil {
		return nil, err
	}
	config := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: o.name, Namespace: podNamespace, Uid: rand.Text()},
		Labels:       map[string]string{ownLabel: ownLabelValue},
		LogDirectory: dir,
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
