package containerd

import (
	"encoding/json"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/pinfold-run/pinfold/internal/pod"
)

// The names by which clients find the types of JSON values.
const (
	specURL              = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
	containerMetadataURL = "github.com/containerd/cri/pkg/store/container/Metadata"
	sandboxMetadataURL   = "github.com/containerd/cri/pkg/store/sandbox/Metadata"

	containerMetadataKey = "io.cri-containerd.container.metadata"
	sandboxMetadataKey   = "io.cri-containerd.sandbox.metadata"
)

// containerSpec is the OCI configuration that the container was made with. A container that has none yet, or none any
// more, gets one without contents: clients follow its pointers without a look.
func (o objects) containerSpec(rec *pod.ContainerRecord) *anypb.Any {
	if shown := o.places.ShownBundle(rec.ID); shown != nil {
		return &anypb.Any{TypeUrl: specURL, Value: shown}
	}
	spec := emptySpec()
	spec.Annotations = map[string]string{
		"io.kubernetes.cri.container-type": kindContainer, "io.kubernetes.cri.sandbox-id": rec.Sandbox,
		"io.kubernetes.cri.container-name": rec.Config.GetMetadata().GetName(), "io.kubernetes.cri.image-name": rec.ImageName(),
	}
	if box, err := o.book.Sandbox(rec.Sandbox); err == nil {
		spec.Linux.CgroupsPath = o.places.Cgroup(box.Record()).Container(rec.ID)
	}
	return jsonAny(specURL, spec)
}

// sandboxSpec is what the OCI configuration of the pod's pause container would be: its namespaces, its group, its name.
func (o objects) sandboxSpec(rec *pod.SandboxRecord) *anypb.Any {
	data, err := o.places.ShownSpec(rec)
	spec := &specs.Spec{}
	if err == nil {
		err = json.Unmarshal(data, spec)
	}
	if err != nil || spec.Linux == nil {
		spec = emptySpec()
	}
	if spec.Process == nil {
		spec.Process = &specs.Process{Cwd: "/"}
	}
	return jsonAny(specURL, spec)
}

func emptySpec() *specs.Spec {
	return &specs.Spec{
		Version: specs.Version, Process: &specs.Process{Cwd: "/"}, Root: &specs.Root{},
		Linux: &specs.Linux{Resources: &specs.LinuxResources{}},
	}
}

// The extensions are what containerd's CRI keeps of its objects. Agents read the log's path there.
func containerExtensions(rec *pod.ContainerRecord) map[string]*anypb.Any {
	meta := rec.Config.GetMetadata()
	return map[string]*anypb.Any{containerMetadataKey: jsonAny(containerMetadataURL, map[string]any{
		"Version": "v1",
		"Metadata": map[string]any{
			"ID": rec.ID, "Name": name(meta.GetName(), meta.GetAttempt()), "SandboxID": rec.Sandbox,
			"ImageRef": rec.Image, "LogPath": rec.LogPath,
			"Config": rec.Config.Shown(),
		},
	})}
}

func sandboxExtensions(rec *pod.SandboxRecord) map[string]*anypb.Any {
	meta := rec.Config.GetMetadata()
	ip := ""
	if rec.Network != nil {
		if all := rec.Network.IPs(); len(all) > 0 {
			ip = all[0].String()
		}
	}
	return map[string]*anypb.Any{sandboxMetadataKey: jsonAny(sandboxMetadataURL, map[string]any{
		"Version": "v1",
		"Metadata": map[string]any{
			"ID": rec.ID, "Name": name(meta.GetName(), meta.GetNamespace(), meta.GetUid(), meta.GetAttempt()), "IP": ip,
			"Config": rec.Config.PodSandboxConfig, "RuntimeHandler": rec.Handler,
		},
	})}
}

// name joins the parts of a name as containerd's CRI does.
func name(parts ...any) string {
	var words []string
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			words = append(words, p)
		case uint32:
			words = append(words, strconv.Itoa(int(p)))
		}
	}
	return strings.Join(words, "_")
}

// jsonAny packs a value whose type has no protocol buffer.
func jsonAny(url string, value any) *anypb.Any {
	data, err := json.Marshal(value)
	if err != nil {
		data = []byte("{}")
	}
	return &anypb.Any{TypeUrl: url, Value: data}
}

// protoAny packs a message under its bare name, as containerd does: without the host before it that protobuf puts there.
func protoAny(message proto.Message) *anypb.Any {
	data, err := proto.Marshal(message)
	if err != nil {
		return nil
	}
	return &anypb.Any{TypeUrl: string(message.ProtoReflect().Descriptor().FullName()), Value: data}
}
