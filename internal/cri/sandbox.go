package cri

import (
	"context"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/pod/lifecycle"
	"github.com/pinfold-run/pinfold/internal/steps"
)

// pods serves the RPCs of pods.
type pods struct {
	places    *pod.Places
	book      *pod.Book
	engine    *steps.Engine
	sandboxes *lifecycle.Sandboxes
}

// RunPodSandbox makes a pod, ready for containers. See lifecycle.Sandboxes.Run.
func (r *pods) RunPodSandbox(ctx context.Context, req *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	id, err := r.sandboxes.Run(ctx, req.GetConfig(), req.GetRuntimeHandler())
	if err != nil {
		return nil, err
	}
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: id}, nil
}

// StopPodSandbox stops a pod's processes and frees its addresses. Idempotent.
func (r *pods) StopPodSandbox(ctx context.Context, req *runtimeapi.StopPodSandboxRequest) (*runtimeapi.StopPodSandboxResponse, error) {
	if err := r.sandboxes.Stop(ctx, req.GetPodSandboxId()); err != nil {
		return nil, err
	}
	return &runtimeapi.StopPodSandboxResponse{}, nil
}

// RemovePodSandbox removes a pod with its containers. Idempotent.
func (r *pods) RemovePodSandbox(ctx context.Context, req *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error) {
	if err := r.sandboxes.Remove(ctx, req.GetPodSandboxId()); err != nil {
		return nil, err
	}
	return &runtimeapi.RemovePodSandboxResponse{}, nil
}

// PodSandboxStatus describes one pod and its containers.
func (r *pods) PodSandboxStatus(_ context.Context, req *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	// Take the time first: the status is at least that new. A kubelet would keep an older status
	// that claims to be newer.
	at := time.Now().UnixNano()
	box, err := r.book.Sandbox(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	rec := r.sandboxes.Current(box)
	if !visible(rec.State) {
		return nil, &pod.MissingError{Kind: "sandbox", ID: req.GetPodSandboxId(), Why: "is " + string(rec.State)}
	}
	resp := &runtimeapi.PodSandboxStatusResponse{Status: sandboxStatus(rec), Timestamp: at}
	for _, c := range r.book.ContainersOf(box.ID) {
		if visible(c.Record().State) {
			resp.ContainersStatuses = append(resp.ContainersStatuses, containerStatus(c.Record()))
		}
	}
	if req.GetVerbose() {
		resp.Info, err = r.sandboxInfo(rec)
	}
	return resp, err
}

// ListPodSandbox lists the pods that match the filter, newest first.
func (r *pods) ListPodSandbox(_ context.Context, req *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	return &runtimeapi.ListPodSandboxResponse{Items: r.list(req.GetFilter())}, nil
}

func (r *pods) list(f *runtimeapi.PodSandboxFilter) []*runtimeapi.PodSandbox {
	var list []*runtimeapi.PodSandbox
	for _, box := range r.book.Sandboxes() {
		rec := r.sandboxes.Current(box)
		if visible(rec.State) && idMatches(rec.ID, f.GetId()) && labelsMatch(rec.Config.GetLabels(), f.GetLabelSelector()) &&
			(f.GetState() == nil || f.GetState().GetState() == sandboxState(rec)) {
			list = append(list, &runtimeapi.PodSandbox{
				Id:             rec.ID,
				Metadata:       rec.Config.GetMetadata(),
				State:          sandboxState(rec),
				CreatedAt:      rec.Created.UnixNano(),
				Labels:         rec.Config.GetLabels(),
				Annotations:    rec.Config.GetAnnotations(),
				RuntimeHandler: rec.Handler,
			})
		}
	}
	return list
}

func sandboxStatus(rec *pod.SandboxRecord) *runtimeapi.PodSandboxStatus {
	status := &runtimeapi.PodSandboxStatus{
		Id:          rec.ID,
		Metadata:    rec.Config.GetMetadata(),
		State:       sandboxState(rec),
		CreatedAt:   rec.Created.UnixNano(),
		Network:     &runtimeapi.PodSandboxNetworkStatus{},
		Labels:      rec.Config.GetLabels(),
		Annotations: rec.Config.GetAnnotations(),
		Linux: &runtimeapi.LinuxPodSandboxStatus{Namespaces: &runtimeapi.Namespace{
			Options: rec.Config.GetLinux().GetSecurityContext().GetNamespaceOptions(),
		}},
		RuntimeHandler: rec.Handler,
	}
	if rec.Network != nil && rec.State == pod.Ready {
		for i, ip := range rec.Network.IPs() {
			if i == 0 {
				status.Network.Ip = ip.String()
				continue
			}
			status.Network.AdditionalIps = append(status.Network.AdditionalIps, &runtimeapi.PodIP{Ip: ip.String()})
		}
	}
	return status
}

// visible reports whether an object is listed. For all calls but Remove, an object in removal does
// not exist, even while a debt keeps its record.
func visible(s pod.State) bool { return s != pod.Removing && s != pod.Creating }

func sandboxState(rec *pod.SandboxRecord) runtimeapi.PodSandboxState {
	if rec.State == pod.Ready {
		return runtimeapi.PodSandboxState_SANDBOX_READY
	}
	return runtimeapi.PodSandboxState_SANDBOX_NOTREADY
}
