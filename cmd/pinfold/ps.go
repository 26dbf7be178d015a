package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func psCommand(t *tool) *cobra.Command {
	var o output
	var all bool
	cmd := &cobra.Command{
		Use:     "ps [--all] [--output FORMAT | --quiet]",
		Aliases: []string{"pods"},
		Short:   "List the pods and their containers",
		Long: `List the pods that are ready, with their containers: also those of a kubelet, and those that
"pinfold run" left. With --all also the pods that are stopped.

In the table, HOST IDS is the range of the node's user ids that the pod has, and an exited container
has its exit code in parentheses. JSON and YAML have for each pod CRI's PodSandboxStatusResponse.`,
		Example: `  pinfold ps
  pinfold ps --all --no-trunc
  pinfold ps -o json | jq -r '.items[].status.network.ip'
  pinfold rm $(pinfold ps -q)`,
		Args: wantsNothing,
		RunE: t.does(func(ctx context.Context, t *tool, _ []string) error { return ps(ctx, t, &o, all) }),
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also list pods that are stopped")
	o.addList(cmd)
	return cmd
}

// podList is what ps prints.
type podList struct {
	Items []document `json:"items"`
}

func ps(ctx context.Context, t *tool, o *output, all bool) error {
	if err := o.check(); err != nil {
		return err
	}
	n, err := t.connect(ctx)
	if err != nil {
		return err
	}
	defer n.close()
	list, err := n.runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	pods := []*runtimeapi.PodSandboxStatusResponse{}
	for _, pod := range list.Items {
		if !all && pod.State != runtimeapi.PodSandboxState_SANDBOX_READY {
			continue
		}
		if o.quiet {
			fmt.Fprintln(t.out, visible(pod.Id))
			continue
		}
		status, err := n.runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod.Id})
		if err != nil {
			if isNotFound(err) {
				continue // removed meanwhile
			}
			return err
		}
		pods = append(pods, status)
	}
	if o.quiet {
		return nil
	}
	return printPods(t, o, pods)
}

func printPods(t *tool, o *output, pods []*runtimeapi.PodSandboxStatusResponse) error {
	documents := podList{Items: []document{}}
	for _, p := range pods {
		documents.Items = append(documents.Items, document{p})
	}
	return o.print(t, documents, func(w io.Writer) error {
		return columns(w, func(w io.Writer) {
			fmt.Fprintln(w, "POD ID\tNAME\tSTATE\tIP\tHOST IDS\tAGE\tCONTAINERS")
			for _, p := range pods {
				s := p.GetStatus()
				fmt.Fprintf(w, "%s\t%s/%s\t%s\t%s\t%s\t%s\t%s\n", o.id(s.GetId()), visible(s.GetMetadata().GetNamespace()), visible(s.GetMetadata().GetName()),
					strings.TrimPrefix(s.GetState().String(), "SANDBOX_"), orDash(visible(s.GetNetwork().GetIp())), hostIDs(s),
					t.age(s.GetCreatedAt()), containerList(p.GetContainersStatuses()))
			}
		})
	})
}

// age is how long ago a time of CRI was, in nanoseconds since 1970.
func (t *tool) age(nanoseconds int64) string {
	return t.now().Sub(time.Unix(0, nanoseconds)).Round(time.Second).String()
}

func hostIDs(s *runtimeapi.PodSandboxStatus) string {
	var list []string
	for _, m := range s.GetLinux().GetNamespaces().GetOptions().GetUsernsOptions().GetUids() {
		list = append(list, fmt.Sprintf("%d+%d", m.HostId, m.Length))
	}
	return orDash(strings.Join(list, ","))
}

func containerList(all []*runtimeapi.ContainerStatus) string {
	var list []string
	for _, c := range all {
		list = append(list, visible(c.GetMetadata().GetName())+":"+containerState(c))
	}
	return orDash(strings.Join(list, " "))
}

// containerState is the state in one word, with the exit code if the container has ended.
func containerState(c *runtimeapi.ContainerStatus) string {
	text := strings.ToLower(strings.TrimPrefix(c.GetState().String(), "CONTAINER_"))
	if c.GetState() == runtimeapi.ContainerState_CONTAINER_EXITED {
		text += fmt.Sprintf("(%d)", c.GetExitCode())
	}
	return text
}
