package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	pinfoldv1 "github.com/pinfold-run/pinfold/api/pinfold/v1"
)

func ps(ctx context.Context, t *tool, _ []string) error {
	n, err := t.connect()
	if err != nil {
		return err
	}
	defer n.close()
	list, err := n.runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "POD ID\tNAME\tSTATE\tIP\tHOST IDS\tAGE\tCONTAINERS")
	for _, pod := range list.Items {
		status, err := n.runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod.Id})
		if err != nil {
			continue // removed meanwhile
		}
		s := status.Status
		fmt.Fprintf(w, "%s\t%s/%s\t%s\t%s\t%s\t%s\t%s\n", pod.Id[:12], visible(pod.Metadata.Namespace), visible(pod.Metadata.Name),
			strings.TrimPrefix(s.State.String(), "SANDBOX_"), orDash(s.Network.GetIp()), hostIDs(s),
			time.Since(time.Unix(0, s.CreatedAt)).Round(time.Second), containerList(status.ContainersStatuses))
	}
	return w.Flush()
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
		text := visible(c.Metadata.Name) + ":" + strings.ToLower(strings.TrimPrefix(c.State.String(), "CONTAINER_"))
		if c.State == runtimeapi.ContainerState_CONTAINER_EXITED {
			text += fmt.Sprintf("(%d)", c.ExitCode)
		}
		list = append(list, text)
	}
	return orDash(strings.Join(list, " "))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// findPod finds a pod by name, namespace/name, or the beginning of its ID.
func (n *node) findPod(ctx context.Context, want string) (*runtimeapi.PodSandbox, error) {
	list, err := n.runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return nil, err
	}
	var found []*runtimeapi.PodSandbox
	for _, pod := range list.Items {
		m := pod.Metadata
		if m.Name == want || m.Namespace+"/"+m.Name == want || strings.HasPrefix(pod.Id, want) {
			found = append(found, pod)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("there is no pod %q", want)
	case 1:
		return found[0], nil
	default:
		return nil, fmt.Errorf("%q matches %d pods; use an ID", want, len(found))
	}
}

// containerOf finds the newest container of a pod.
func (n *node) containerOf(ctx context.Context, pod string) (string, error) {
	p, err := n.findPod(ctx, pod)
	if err != nil {
		return "", err
	}
	list, err := n.runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{PodSandboxId: p.Id}})
	if err != nil {
		return "", err
	}
	if len(list.Containers) == 0 {
		return "", fmt.Errorf("pod %s has no container", pod)
	}
	return list.Containers[0].Id, nil
}

func execute(ctx context.Context, t *tool, args []string) error {
	before, command := splitCommand(args)
	if len(before) != 1 || len(command) == 0 {
		return errors.New("exec: name one pod; put the command after --")
	}
	n, err := t.connect()
	if err != nil {
		return err
	}
	defer n.close()
	id, err := n.containerOf(ctx, before[0])
	if err != nil {
		return err
	}
	resp, err := n.runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: command})
	if err != nil {
		return err
	}
	_, err1 := t.out.Write(resp.Stdout)
	_, err2 := t.errs.Write(resp.Stderr)
	if err := errors.Join(err1, err2); err != nil || resp.ExitCode == 0 {
		return err
	}
	return exitCode(resp.ExitCode)
}

// description is what inspect prints: CRI's statuses, with the verbose part as JSON.
type description struct {
	Pod        *runtimeapi.PodSandboxStatus `json:"pod"`
	Info       json.RawMessage              `json:"info"`
	Containers []containerDescription       `json:"containers"`
}

type containerDescription struct {
	Status *runtimeapi.ContainerStatus `json:"status"`
	Info   json.RawMessage             `json:"info"`
}

func inspect(ctx context.Context, t *tool, args []string) error {
	if len(args) != 1 {
		return errors.New("inspect: name one pod")
	}
	n, err := t.connect()
	if err != nil {
		return err
	}
	defer n.close()
	pod, err := n.findPod(ctx, args[0])
	if err != nil {
		return err
	}
	status, err := n.runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod.Id, Verbose: true})
	if err != nil {
		return err
	}
	d := description{Pod: status.Status, Info: json.RawMessage(status.Info["info"])}
	for _, c := range status.ContainersStatuses {
		full, err := n.runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: c.Id, Verbose: true})
		if err != nil {
			continue // removed meanwhile
		}
		d.Containers = append(d.Containers, containerDescription{full.Status, json.RawMessage(full.Info["info"])})
	}
	return t.printJSON(d)
}

func (t *tool) printJSON(v any) error {
	e := json.NewEncoder(t.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func why(ctx context.Context, t *tool, args []string) error {
	if len(args) > 1 {
		return errors.New("why: name at most one pod")
	}
	n, err := t.connect()
	if err != nil {
		return err
	}
	defer n.close()
	list, err := n.own.ListOperations(ctx, &pinfoldv1.ListOperationsRequest{Object: strings.Join(args, "")})
	if err != nil {
		return err
	}
	for _, op := range list.GetOperations() {
		fmt.Fprintf(t.out, "%s: %s: step %q for %s (operation began %s ago)\n", op.GetName(), visible(op.GetObject()), visible(op.GetStep()),
			time.Since(op.GetStepBegan().AsTime()).Round(time.Millisecond), time.Since(op.GetBegan().AsTime()).Round(time.Millisecond))
	}
	if len(list.GetOperations()) == 0 {
		fmt.Fprintln(t.out, "nothing is in progress")
	}
	return nil
}

func remove(ctx context.Context, t *tool, args []string) error {
	if len(args) == 0 {
		return errors.New("rm: name at least one pod")
	}
	n, err := t.connect()
	if err != nil {
		return err
	}
	defer n.close()
	var failed []error
	for _, name := range args {
		pod, err := n.findPod(ctx, name)
		if err == nil {
			err = n.removePod(ctx, pod.Id)
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
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
