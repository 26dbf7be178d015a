package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// defaultGrace is how long containers have between TERM and KILL.
const defaultGrace = 10 * time.Second

// maxGrace is the longest grace period. It fits in every unit that the way to the kernel knows.
const maxGrace = 24 * time.Hour

// selection are the pods that a command works on.
type selection struct {
	all   bool
	grace seconds
}

func (s *selection) addTo(cmd *cobra.Command, verb string) {
	s.grace = seconds(defaultGrace)
	cmd.Flags().BoolVar(&s.all, "all", false, verb+` every pod that "pinfold run" made; pods of a kubelet are left alone`)
	cmd.Flags().VarP(&s.grace, "time", "t", "`time` that containers have to end after TERM (or the image's stop signal), before KILL: seconds, or a duration as 1m30s; 0 kills at once")
}

// seconds is a flag that takes a whole number of seconds or a duration.
type seconds time.Duration

// String implements pflag.Value.
func (s *seconds) String() string { return time.Duration(*s).String() }

// Type implements pflag.Value.
func (s *seconds) Type() string { return "time" }

// Set implements pflag.Value.
func (s *seconds) Set(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil {
		d, err = time.ParseDuration(text + "s")
	}
	if err != nil {
		return errors.New("want seconds, or a duration as 1m30s")
	}
	if d < 0 || d > maxGrace {
		return fmt.Errorf("want 0 to %s", maxGrace)
	}
	*s = seconds(d)
	return nil
}

// inSeconds is the number for CRI. What is not zero does not become zero.
func (s *seconds) inSeconds() int64 {
	return int64((time.Duration(*s) + time.Second - 1) / time.Second)
}

func stopCommand(t *tool) *cobra.Command {
	var s selection
	cmd := &cobra.Command{
		Use:   "stop [--time TIME] [--all] POD...",
		Short: "Stop pods and keep their records and logs",
		Long: `Stop the containers of pods, then the pods. Records and logs stay, for logs and inspect, until
"pinfold rm". A stopped pod cannot be started again.
` + nameHelp + `
A kubelet starts its pods again: drain the node to stop those.`,
		Example: `  pinfold stop my-pod
  pinfold stop --time 0 --all`,
		ValidArgsFunction: t.completer(-1, podNames),
		RunE: t.does(func(ctx context.Context, t *tool, args []string) error {
			return t.eachPod(ctx, "stop", &s, args, func(n *node, id string) error { return n.stopPod(ctx, id, &s.grace) })
		}),
	}
	s.addTo(cmd, "stop")
	return cmd
}

func rmCommand(t *tool) *cobra.Command {
	var s selection
	cmd := &cobra.Command{
		Use:     "rm [--time TIME] [--all] POD...",
		Aliases: []string{"remove"},
		Short:   "Stop and remove pods",
		Long: `Stop pods as "pinfold stop" does, and remove them with all that Pinfold made for them. Logs that
"pinfold run" made are removed, too. ` + nameHelp + `
A kubelet starts its pods again: drain the node to remove those.`,
		Example: `  pinfold rm my-pod
  pinfold rm --time 0 one two
  pinfold rm --all`,
		ValidArgsFunction: t.completer(-1, podNames),
		RunE: t.does(func(ctx context.Context, t *tool, args []string) error {
			return t.eachPod(ctx, "rm", &s, args, func(n *node, id string) error {
				return errors.Join(n.stopPod(ctx, id, &s.grace), n.removePod(ctx, id))
			})
		}),
	}
	s.addTo(cmd, "remove")
	return cmd
}

// eachPod calls do for each pod, also after an error.
func (t *tool) eachPod(ctx context.Context, verb string, s *selection, names []string, do func(n *node, id string) error) error {
	if s.all == (len(names) > 0) {
		return misuse("%s: name at least one pod, or use --all", verb)
	}
	n, err := t.connect(ctx)
	if err != nil {
		return err
	}
	defer n.close()
	if s.all {
		if names, err = n.ownPods(ctx); err != nil {
			return err
		}
	}
	var failed []error
	for _, name := range names {
		pod, err := n.findPod(ctx, name)
		if err == nil {
			err = do(n, pod.Id)
		}
		if ctx.Err() != nil {
			return errors.Join(append(failed, err)...)
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// ownPods returns the IDs of the pods of pinfold run. The label is no secret and no right: a client
// of the socket that sets it says that its pod may be removed like those.
func (n *node) ownPods(ctx context.Context) ([]string, error) {
	list, err := n.runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{
		LabelSelector: map[string]string{ownLabel: ownLabelValue},
	}})
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, pod := range list.Items {
		ids = append(ids, pod.Id)
	}
	return ids, nil
}

// stopPod stops the containers with a grace period, then the pod.
func (n *node) stopPod(ctx context.Context, id string, grace *seconds) error {
	list, err := n.runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{PodSandboxId: id}})
	if err != nil {
		return err
	}
	stopped := make(chan struct{}, len(list.Containers))
	for _, c := range list.Containers {
		go func() {
			_, _ = n.runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: c.Id, Timeout: grace.inSeconds()})
			stopped <- struct{}{}
		}()
	}
	for range list.Containers {
		<-stopped // if it failed, StopPodSandbox kills the container all the same, or says why not
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err = n.runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id})
	return err
}

// removePod removes a pod and, if pinfold run made it, its log. The pod's annotations and namespace
// decide nothing here, because tenants choose them.
func (n *node) removePod(ctx context.Context, id string) error {
	if _, err := n.runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
		return err
	}
	if _, err := n.runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
		return err
	}
	return n.logs.remove(id)
}
