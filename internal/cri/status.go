package cri

import (
	"context"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/network"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/pod/lifecycle"
	"github.com/pinfold-run/pinfold/internal/pod/recovery"
)

// node serves the RPCs about the node and the runtime itself.
type node struct {
	node      *pod.Node
	sandboxes *lifecycle.Sandboxes
	debts     *recovery.Debts
	network   *network.Network
	images    *image.Store
	version   string
}

// Version says which API this is. The version in the request has no meaning any more.
func (r *node) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{
		Version:           "0.1.0", // the version of the kubelet's API, fixed since 2016
		RuntimeName:       "pinfold",
		RuntimeVersion:    r.version,
		RuntimeApiVersion: "v1",
	}, nil
}

// Status says whether the node can run pods and has a network for them, and what each runtime
// handler supports.
func (r *node) Status(ctx context.Context, req *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	resp := &runtimeapi.StatusResponse{
		Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
			condition(runtimeapi.RuntimeReady, "RuntimeNotReady", r.node.Ready(ctx)),
			condition(runtimeapi.NetworkReady, "NetworkPluginNotReady", r.network.Status(ctx)),
		}},
		Features: &runtimeapi.RuntimeFeatures{
			SupplementalGroupsPolicy:  true,
			UserNamespacesHostNetwork: r.node.Host.Features.UsernsHostNetwork,
			MountOptions:              true,
		},
	}
	handlers := r.node.Handlers.All(ctx)
	for _, h := range handlers {
		resp.RuntimeHandlers = append(resp.RuntimeHandlers, &runtimeapi.RuntimeHandler{
			Name: h.Name,
			Features: &runtimeapi.RuntimeHandlerFeatures{
				RecursiveReadOnlyMounts: h.RecursiveReadOnly && r.node.Host.Features.RecursiveReadOnly,
				UserNamespaces:          h.UserNamespaces && r.node.UserNamespaces == nil,
			},
		})
	}
	if !req.GetVerbose() {
		return resp, nil
	}
	var err error
	resp.Info, err = r.statusInfo(handlers)
	return resp, err
}

// condition is true if there is no problem.
func condition(kind, reason string, problem error) *runtimeapi.RuntimeCondition {
	if problem == nil {
		return &runtimeapi.RuntimeCondition{Type: kind, Status: true}
	}
	return &runtimeapi.RuntimeCondition{Type: kind, Reason: reason, Message: problem.Error()}
}

func (r *node) statusInfo(handlers any) (map[string]string, error) {
	n := r.node
	userns := "works"
	if n.UserNamespaces != nil {
		userns = n.UserNamespaces.Error()
	}
	return toInfo(map[string]any{
		"host":           n.Host,
		"handlers":       handlers,
		"paths":          n.Paths,
		"userNamespaces": userns,
		"debts":          r.debts.Count(),
		"inFlight":       n.Engine.Flights(""),
		"pulls":          r.images.Pulls(),
	})
}

// RuntimeConfig says which cgroup driver is used, so that the kubelet uses the same one.
func (r *node) RuntimeConfig(context.Context, *runtimeapi.RuntimeConfigRequest) (*runtimeapi.RuntimeConfigResponse, error) {
	driver := runtimeapi.CgroupDriver_CGROUPFS
	if r.node.Host.SystemdCgroup {
		driver = runtimeapi.CgroupDriver_SYSTEMD
	}
	return &runtimeapi.RuntimeConfigResponse{Linux: &runtimeapi.LinuxRuntimeConfiguration{CgroupDriver: driver}}, nil
}
