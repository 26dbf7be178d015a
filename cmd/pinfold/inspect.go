package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func inspectCommand(t *tool) *cobra.Command {
	var o output
	var kind string
	var timeline bool
	cmd := &cobra.Command{
		Use:   "inspect [--type KIND] [--output FORMAT | --timeline] POD|CONTAINER|IMAGE",
		Short: "Print all about a pod, a container or an image",
		Long: `Print all about a pod, a container or an image, as JSON. The name is looked for among the pods
(name, NAMESPACE/NAME, or the beginning of the ID), then among the containers (beginning of the ID),
then among the images (name, digest or ID). --type looks among one kind only.

"status" is CRI's status message. "info" is what Pinfold knows beyond it: the timeline of a pod's
steps, the process, the runtime's configuration. A pod also has "containers", each with both.
Environment variables of containers are in it, so treat the output as you treat those.

--timeline draws where the time of a start went, step by step, in place of all that.`,
		Example: `  pinfold inspect my-pod
  pinfold inspect --timeline my-pod
  pinfold inspect --type image docker.io/library/busybox:latest -o yaml`,
		Args:              wants(1, 1, "one pod, container or image"),
		ValidArgsFunction: t.completer(1, podNames),
		RunE: t.does(func(ctx context.Context, t *tool, args []string) error {
			return inspect(ctx, t, &inspection{output: &o, kind: kind, timeline: timeline}, args[0])
		}),
	}
	o.addFormat(cmd, formatJSON)
	cmd.Flags().BoolVar(&timeline, "timeline", false, "draw where the time of a start went")
	cmd.MarkFlagsMutuallyExclusive("timeline", "output")
	cmd.Flags().StringVar(&kind, "type", "", "look only among this `kind`: pod, container or image")
	_ = cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions([]string{"pod", "container", "image"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// description is what inspect prints: CRI's status, and the verbose part as JSON.
type description struct {
	Status     document        `json:"status"`
	Info       json.RawMessage `json:"info"`
	Containers []description   `json:"containers,omitempty"`
}

// inspection is what is asked for, and how it is printed.
type inspection struct {
	output   *output
	kind     string
	timeline bool
}

func inspect(ctx context.Context, t *tool, i *inspection, name string) error {
	look := map[string]func(*node, context.Context, string) (*description, error){
		"pod": (*node).describePod, "container": (*node).describeContainer, "image": (*node).describeImage,
	}
	kinds := []string{"pod", "container", "image"}
	if kind := i.kind; kind != "" {
		if look[kind] == nil {
			return misuse("--type %s: the kinds are %s", kind, strings.Join(kinds, ", "))
		}
		kinds = []string{kind}
	}
	n, err := t.connect(ctx)
	if err != nil {
		return err
	}
	defer n.close()
	for _, k := range kinds {
		d, err := look[k](n, ctx, name)
		if _, ok := errors.AsType[notFound](err); ok {
			continue
		}
		if err != nil {
			return err
		}
		if i.timeline {
			return d.timeline(t.out)
		}
		return i.output.print(t, d, func(w io.Writer) error { return d.table(t, w) })
	}
	return notFound{strings.Join(kinds, ", "), name}
}

func isNotFound(err error) bool { return status.Code(err) == codes.NotFound }

func (n *node) describePod(ctx context.Context, name string) (*description, error) {
	pod, err := n.findPod(ctx, name)
	if err != nil {
		return nil, err
	}
	s, err := n.runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod.Id, Verbose: true})
	if err != nil {
		return nil, err
	}
	d := &description{Status: document{s.Status}, Info: rawInfo(s.Info)}
	for _, c := range s.ContainersStatuses {
		full, err := n.describeContainer(ctx, c.Id)
		if _, ok := errors.AsType[notFound](err); ok || isNotFound(err) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		d.Containers = append(d.Containers, *full)
	}
	return d, nil
}

func (n *node) describeContainer(ctx context.Context, name string) (*description, error) {
	c, err := n.findContainer(ctx, name)
	if err != nil {
		return nil, err
	}
	s, err := n.runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: c.Id, Verbose: true})
	if err != nil {
		return nil, err
	}
	return &description{Status: document{s.Status}, Info: rawInfo(s.Info)}, nil
}

func (n *node) describeImage(ctx context.Context, name string) (*description, error) {
	s, err := n.images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: name}, Verbose: true})
	if isNotFound(err) || status.Code(err) == codes.InvalidArgument || (err == nil && s.Image == nil) {
		return nil, notFound{"image", name}
	}
	if err != nil {
		return nil, err
	}
	return &description{Status: document{s.Image}, Info: rawInfo(s.Info)}, nil
}

// table prints the facts that are most often looked for.
func (d *description) table(t *tool, w io.Writer) error {
	return columns(w, func(w io.Writer) {
		line := func(key, value string) { fmt.Fprintf(w, "%s\t%s\n", key, orDash(visible(value))) }
		switch m := d.Status.message.(type) {
		case *runtimeapi.PodSandboxStatus:
			line("POD", m.GetMetadata().GetNamespace()+"/"+m.GetMetadata().GetName())
			line("ID", m.GetId())
			line("STATE", strings.TrimPrefix(m.GetState().String(), "SANDBOX_"))
			line("IP", m.GetNetwork().GetIp())
			line("HOST IDS", hostIDs(m))
			line("RUNTIME", m.GetRuntimeHandler())
			line("AGE", t.age(m.GetCreatedAt()))
		case *runtimeapi.ContainerStatus:
			line("CONTAINER", m.GetMetadata().GetName())
			line("ID", m.GetId())
			line("STATE", containerState(m))
			line("REASON", strings.TrimPrefix(m.GetReason()+": "+m.GetMessage(), ": "))
			line("IMAGE", m.GetImage().GetImage())
			line("LOG", m.GetLogPath())
			line("CREATED", time.Unix(0, m.GetCreatedAt()).UTC().Format(time.RFC3339))
		case *runtimeapi.Image:
			line("IMAGE", strings.Join(m.GetRepoTags(), " "))
			line("ID", m.GetId())
			line("DIGESTS", strings.Join(m.GetRepoDigests(), " "))
			line("SIZE", sizeText(m.GetSize()))
			line("PINNED", fmt.Sprint(m.GetPinned()))
		}
		for _, c := range d.Containers {
			s, _ := c.Status.message.(*runtimeapi.ContainerStatus)
			line("CONTAINER", fmt.Sprintf("%s %s %s", s.GetId(), s.GetMetadata().GetName(), containerState(s)))
		}
	})
}
