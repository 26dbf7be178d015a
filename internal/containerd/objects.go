package containerd

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/pinfold-run/pinfold/internal/pod"
)

// objects finds pods and containers by the words of containerd.
type objects struct {
	places *pod.Places
	book   *pod.Book
}

// namespaceHeader is the header in which a client names its namespace.
const namespaceHeader = "containerd-namespace"

// here reports whether the client asks for the namespace of our pods. Others exist and are empty. A call needs one.
func here(ctx context.Context) (bool, error) {
	names := metadata.ValueFromIncomingContext(ctx, namespaceHeader)
	if len(names) == 0 || names[0] == "" {
		return false, status.Error(codes.FailedPrecondition, "namespace is required")
	}
	return names[0] == namespace, nil
}

// find returns the record of the pod or of the container of that ID; one of them is nil. Unlike in CRI, the beginning of an
// ID is none.
func (o objects) find(ctx context.Context, id string) (*pod.SandboxRecord, *pod.ContainerRecord, error) {
	ours, err := here(ctx)
	if err != nil {
		return nil, nil, err
	}
	if ours {
		if c, err := o.book.Container(id); err == nil && c.ID == id && c.Record().State != pod.Removing {
			return nil, c.Record(), nil
		}
		if box, err := o.book.Sandbox(id); err == nil && box.ID == id && box.Record().State != pod.Removing {
			return box.Record(), nil, nil
		}
	}
	return nil, nil, status.Errorf(codes.NotFound, "container %q in namespace %q: not found", id, namespace)
}

// sandboxRecords are those of all pods, the newest first.
func (o objects) sandboxRecords() []*pod.SandboxRecord {
	var list []*pod.SandboxRecord
	for _, box := range o.book.Sandboxes() {
		if rec := box.Record(); rec.State != pod.Removing {
			list = append(list, rec)
		}
	}
	return list
}

// containerRecords are those of all containers, the newest first. A container is known from before its group is made:
// cAdvisor asks for it as soon as it sees the group, and only then.
func (o objects) containerRecords() []*pod.ContainerRecord {
	var list []*pod.ContainerRecord
	for _, c := range o.book.Containers() {
		if rec := c.Record(); rec.State != pod.Removing {
			list = append(list, rec)
		}
	}
	return list
}
