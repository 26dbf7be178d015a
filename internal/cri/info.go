package cri

import (
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"strings"

	"github.com/pinfold-run/pinfold/internal/pod"
)

// The verbose status is for operators and for agents on nodes. Agents read it under the names that containerd and CRI-O
// have there (docs/agents.md); the rest is Pinfold's own.

// containerInfo is the verbose part of a container's status.
func (r *containers) containerInfo(rec *pod.ContainerRecord) (map[string]string, error) {
	spec := r.places.ShownBundle(rec.ID)
	info := map[string]any{
		"sandboxID":   rec.Sandbox,
		"pid":         rec.Process.PID,
		"removing":    false, // one in removal has no status
		"image":       rec.Image,
		"privileged":  rec.Config.GetLinux().GetSecurityContext().GetPrivileged(),
		"snapshotter": snapshotter,
		"snapshotKey": rec.ID,
		"config":      rec.Config.Shown(),
		"runtimeSpec": spec,
		"state":       rec.State,
		"timeline":    rec.Timeline,
		"inFlight":    r.engine.Flights(rec.ID),
	}
	if len(spec) <= maxTwice {
		info["spec"] = spec
	}
	if box, err := r.book.Sandbox(rec.Sandbox); err == nil {
		addRuntime(info, r.places, box.Record())
		info["namespaces"] = pod.Namespaces(rec, r.places.NamespacePins(box.Record()))
	}
	return toInfo(info)
}

// maxTwice is the size of a specification, in bytes, up to which it is shown under its older name, too.
const maxTwice = 1 << 20

// snapshotter is containerd's name for what Pinfold does, too: layers are mounted with overlayfs.
const snapshotter = "overlayfs"

// addRuntime adds what is known of a pod's OCI runtime.
func addRuntime(info map[string]any, places *pod.Places, rec *pod.SandboxRecord) {
	means := places.Means(rec)
	info["runtimeHandler"] = rec.Handler
	info["runtimeType"] = "oci" // CRI-O's word for a runtime that is a program
	info["runtimeOptions"] = map[string]any{
		"BinaryName": means.Runtime, "Root": means.RuntimeRoot, "SystemdCgroup": means.SystemdCgroup,
	}
}

// sandboxInfo is the verbose part of a pod's status.
func (r *pods) sandboxInfo(rec *pod.SandboxRecord) (map[string]string, error) {
	pins := r.places.NamespacePins(rec)
	spec, err := r.places.ShownSpec(rec)
	if err != nil {
		return nil, err
	}
	info := map[string]any{
		"pid":                rec.Init.PID, // of the pod's PID 1; 0 where each container has its own
		"processStatus":      processStatus(rec),
		"netNamespaceClosed": netClosed(pins),
		"image":              "",
		"snapshotter":        snapshotter,
		"snapshotKey":        rec.ID,
		"config":             rec.Config.PodSandboxConfig,
		"runtimeSpec":        spec,
		"cniResult":          rec.Network.Shown(),
		"sandboxMetadata":    sandboxMetadata(rec, pins),
		"state":              rec.State,
		"reason":             rec.Reason,
		"namespaces":         pins,
		"owners":             pod.NamespaceOwners(pins), // of the namespaces
		"network":            rec.Network,
		"timeline":           rec.Timeline,
		"inFlight":           r.engine.Flights(rec.ID),
	}
	addRuntime(info, r.places, rec)
	return toInfo(info)
}

// processStatus is the state of the pod in containerd's words for a sandbox's process.
func processStatus(rec *pod.SandboxRecord) string {
	if rec.State == pod.Ready {
		return "running"
	}
	return "deleted"
}

// netClosed reports whether the pod's network namespace is gone.
func netClosed(pins map[string]string) bool {
	path, ok := pins["net"]
	if !ok {
		return false
	}
	_, err := os.Stat(path)
	return errors.Is(err, os.ErrNotExist)
}

// sandboxMetadata is a pod as containerd's sandbox store has it, with a version around it. What is beside it in the info
// is left out: an answer has a limit.
func sandboxMetadata(rec *pod.SandboxRecord, pins map[string]string) map[string]any {
	status := sandboxStatus(rec)
	more := []string{}
	for _, ip := range status.GetNetwork().GetAdditionalIps() {
		more = append(more, ip.GetIp())
	}
	m := rec.Config.GetMetadata()
	name := strings.Join([]string{m.GetName(), m.GetNamespace(), m.GetUid(), strconv.Itoa(int(m.GetAttempt()))}, "_")
	return map[string]any{"Version": "v1", "Metadata": map[string]any{
		"ID": rec.ID, "Name": name, "NetNSPath": pins["net"], "IP": status.GetNetwork().GetIp(), "AdditionalIPs": more,
		"RuntimeHandler": rec.Handler,
	}}
}

func toInfo(info map[string]any) (map[string]string, error) {
	data, err := json.Marshal(info)
	return map[string]string{"info": string(data)}, err
}
