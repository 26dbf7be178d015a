package ocispec

import (
	"encoding/json"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/pin"
)

func TestMappingsAreThoseOfAPodWithAUserNamespaceOfItsOwn(t *testing.T) {
	lines := `"uids": [{"host_id": 100000, "container_id": 0, "length": 65536}, {"host_id": 900, "container_id": 70000, "length": 1}],
		"gids": [{"host_id": 200000, "container_id": 0, "length": 65537}]`
	want := pin.Mappings{
		UIDs: []pin.IDMap{{ContainerID: 0, HostID: 100000, Length: 65536}, {ContainerID: 70000, HostID: 900, Length: 1}},
		GIDs: []pin.IDMap{{ContainerID: 0, HostID: 200000, Length: 65537}},
	}
	got := podConfig(t, ns(`"userns_options": {"mode": "POD", `+lines+`}`)).Mappings()
	if got == nil || !got.Equal(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, options := range []string{``, `"userns_options": {"mode": "NODE"}`, `"userns_options": {"mode": "NODE", ` + lines + `}`} {
		if got := podConfig(t, ns(options)).Mappings(); got != nil {
			t.Errorf("{%s}: got %v, want none: the pod is in the node's user namespace", options, got)
		}
	}
	if got := (PodConfig{}).Mappings(); got != nil {
		t.Errorf("no configuration: got %v", got)
	}
}

func TestAPodConfigKeepsItsMappingsInJSON(t *testing.T) {
	before := podConfig(t, usernsPod)
	data, err := json.Marshal(before)
	if err != nil {
		t.Fatal(err)
	}
	// A newer Pinfold's record has fields that this one does not know.
	data = append([]byte(`{"fieldOfANewerVersion": 1,`), data[1:]...)
	var after PodConfig
	if err := json.Unmarshal(data, &after); err != nil {
		t.Fatal(err)
	}
	if after.Mappings() == nil || !after.Mappings().Equal(*before.Mappings()) {
		t.Errorf("got %v, want %v", after.Mappings(), before.Mappings())
	}
	if after.GetMetadata().GetName() != before.GetMetadata().GetName() {
		t.Errorf("got %v, want %v", after.PodSandboxConfig, before.PodSandboxConfig)
	}
}

func TestAMountWithoutMappingsHasNone(t *testing.T) {
	line := []*runtimeapi.IDMapping{{ContainerId: 1, HostId: 2, Length: 3}}
	if got := MountMappings(&runtimeapi.Mount{}); got != nil {
		t.Errorf("got %v", got)
	}
	got := MountMappings(&runtimeapi.Mount{UidMappings: line, GidMappings: line})
	want := []pin.IDMap{{ContainerID: 1, HostID: 2, Length: 3}}
	if got == nil || !got.Equal(pin.Mappings{UIDs: want, GIDs: want}) {
		t.Errorf("got %v", got)
	}
}
