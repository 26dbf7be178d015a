package cri

import (
	"context"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/handler"
	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/network"
	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/pod/lifecycle"
	"github.com/pinfold-run/pinfold/internal/pod/recovery"
	"github.com/pinfold-run/pinfold/internal/steps"
)

// node serves the RPCs about the node and the runtime itself.
type node struct {
	Node
	places    *pod.Places
	engine    *steps.Engine
	sandboxes *lifecycle.Sandboxes
}

// Node is what Status says about the node.
type Node struct {
	// Host is what probing found; see package host.
	Host     ocispec.Host
	Handlers *handler.Set
	Network  *network.Network
	Images   *image.Store
	Debts    *recovery.Debts
	// UserNamespaces is why pods cannot have user namespaces here; nil if they can.
	UserNamespaces error
	// Ready says why this node can run no container at all now; nil if it can.
	Ready func(context.Context) error
	// Release is Pinfold's own version.
	Release string
}

// Version says which API this is. The version in the request has no meaning any more.
func (r *node) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{
		Version:           "0.1.0", // the version of the kubelet's API, fixed since 2016
		RuntimeName:       "pinfold",
		RuntimeVersion:    r.Release,
		RuntimeApiVersion: "v1",
	}, nil
}

// Status says whether the node can run pods and has a network for them, and what each runtime
// handler supports.
func (r *node) Status(ctx context.Context, req *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	resp := &runtimeapi.StatusResponse{
		Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
			condition(runtimeapi.RuntimeReady, "RuntimeNotReady", r.Ready(ctx)),
			condition(runtimeapi.NetworkReady, "NetworkPluginNotReady", r.Network.Status(ctx)),
		}},
		Features: &runtimeapi.RuntimeFeatures{
			SupplementalGroupsPolicy:  true,
			UserNamespacesHostNetwork: r.Host.Features.UsernsHostNetwork,
			MountOptions:              true,
		},
	}
	handlers := r.Handlers.All(ctx)
	for _, h := range handlers {
		resp.RuntimeHandlers = append(resp.RuntimeHandlers, &runtimeapi.RuntimeHandler{
			Name: h.Name,
			Features: &runtimeapi.RuntimeHandlerFeatures{
				RecursiveReadOnlyMounts: h.RecursiveReadOnly && r.Host.Features.RecursiveReadOnly,
				UserNamespaces:          h.UserNamespaces && r.UserNamespaces == nil,
			},
		})
	}
	if !req.GetVerbose() {
		return resp, nil
	}
	var err error
	resp.Info, err = r.statusInfo(ctx, handlers)
	return resp, err
}

// condition is true if there is no problem.
func condition(kind, reason string, problem error) *runtimeapi.RuntimeCondition {
	if problem == nil {
		return &runtimeapi.RuntimeCondition{Type: kind, Status: true}
	}
	return &runtimeapi.RuntimeCondition{Type: kind, Reason: reason, Message: problem.Error()}
}

func (r *node) statusInfo(ctx context.Context, handlers any) (map[string]string, error) {
	userns := "works"
	if r.UserNamespaces != nil {
		userns = r.UserNamespaces.Error()
	}
	return toInfo(map[string]any{
		"host":           r.Host,
		"handlers":       handlers,
		"paths":          r.places.Paths,
		"userNamespaces": userns,
		"networkPlugins": r.Network.Plugins(ctx),
		"debts":          r.Debts.Count(),
		"inFlight":       r.engine.Flights(""),
		"pulls":          r.Images.Pulls(),
	})
}

// RuntimeConfig says which cgroup driver is used, so that the kubelet uses the same one.
func (r *node) RuntimeConfig(context.Context, *runtimeapi.RuntimeConfigRequest) (*runtimeapi.RuntimeConfigResponse, error) {
	driver := runtimeapi.CgroupDriver_CGROUPFS
	if r.Host.SystemdCgroup {
		driver = runtimeapi.CgroupDriver_SYSTEMD
	}
	return &runtimeapi.RuntimeConfigResponse{Linux: &runtimeapi.LinuxRuntimeConfiguration{CgroupDriver: driver}}, nil
}
