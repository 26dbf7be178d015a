package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// nameHelp is for the help of commands that take the name of a pod.
const nameHelp = "POD is a pod's name, NAMESPACE/NAME, or the beginning of its ID."

// notFound is the error for a name that nothing has.
type notFound struct{ what, name string }

// Error implements error.
func (e notFound) Error() string {
	return fmt.Sprintf("there is no %s %q (pinfold ps --all lists all)", e.what, e.name)
}

// findPod finds a pod by name, namespace/name, or the beginning of its ID. A whole name or ID comes
// before the beginning of another's ID.
func (n *node) findPod(ctx context.Context, want string) (*runtimeapi.PodSandbox, error) {
	list, err := n.runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return nil, err
	}
	var whole, beginning []*runtimeapi.PodSandbox
	for _, pod := range list.Items {
		m := pod.GetMetadata()
		switch {
		case want == "":
		case pod.Id == want:
			return pod, nil
		case m.GetName() == want || m.GetNamespace()+"/"+m.GetName() == want:
			whole = append(whole, pod)
		case strings.HasPrefix(pod.Id, want):
			beginning = append(beginning, pod)
		}
	}
	found := whole
	if len(found) == 0 {
		found = beginning
	}
	switch len(found) {
	case 0:
		return nil, notFound{"pod", want}
	case 1:
		return found[0], nil
	default:
		return nil, fmt.Errorf("%q matches %d pods; use an ID", want, len(found))
	}
}

// findContainer finds a container by the beginning of its ID.
func (n *node) findContainer(ctx context.Context, want string) (*runtimeapi.Container, error) {
	list, err := n.runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return nil, err
	}
	var found []*runtimeapi.Container
	for _, c := range list.Containers {
		if want != "" && strings.HasPrefix(c.Id, want) {
			found = append(found, c)
		}
	}
	switch len(found) {
	case 0:
		return nil, notFound{"container", want}
	case 1:
		return found[0], nil
	default:
		return nil, fmt.Errorf("%q matches %d containers; use more of the ID", want, len(found))
	}
}

// containerOf finds a container: of a pod, the one with this name, or the newest if name is empty; or
// else by the beginning of the container's own ID.
func (n *node) containerOf(ctx context.Context, want, name string) (string, error) {
	p, err := n.findPod(ctx, want)
	if err != nil {
		if _, ok := errors.AsType[notFound](err); ok && name == "" {
			if c, other := n.findContainer(ctx, want); other == nil {
				return c.Id, nil
			}
			return "", notFound{"pod or container", want}
		}
		return "", err
	}
	list, err := n.runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{PodSandboxId: p.Id}})
	if err != nil {
		return "", err
	}
	var newest *runtimeapi.Container
	var names []string
	for _, c := range list.Containers {
		names = append(names, c.GetMetadata().GetName())
		if (name == "" || c.GetMetadata().GetName() == name) && (newest == nil || c.CreatedAt > newest.CreatedAt) {
			newest = c
		}
	}
	switch {
	case newest != nil:
		return newest.Id, nil
	case len(names) == 0:
		return "", fmt.Errorf("pod %s has no container", want)
	default:
		return "", fmt.Errorf("pod %s has no container %q; it has %s", want, name, strings.Join(names, ", "))
	}
}
