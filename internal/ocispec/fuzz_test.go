package ocispec

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// FuzzBuild builds configurations with any content: protojson, then fields that are changed at
// random by the seed (0 changes none). Nothing panics, every error has a class, and the result is
// valid JSON.
func FuzzBuild(f *testing.F) {
	files, _ := filepath.Glob("testdata/build/*.json")
	for _, file := range files {
		var sc scenario
		if data, err := os.ReadFile(file); err == nil && json.Unmarshal(data, &sc) == nil {
			f.Add(string(sc.Sandbox), string(sc.Container), "1000:staff\x00root:x:0:0\nalice:x:1000:1000\x00staff:x:50:alice", uint64(0))
		}
	}
	for seed := range uint64(300) {
		f.Add(podBase, containerBase, "", seed+1)
	}
	f.Add(`{}`, `{"mounts":[{}],"envs":[{}]}`, ":\x00::::\x00:::,", uint64(0))
	f.Fuzz(func(t *testing.T, pod, container, users string, seed uint64) {
		// The image's user, /etc/passwd and /etc/group, separated by NUL.
		parts := strings.SplitN(users+"\x00\x00", "\x00", 3)
		user, passwd, group := parts[0], parts[1], parts[2]
		c := Container{
			ID: "c1", Rootfs: "/r", Passwd: []byte(passwd), Group: []byte(group), SeccompProfile: []byte(user),
			Sandbox: Sandbox{ID: "s1"}, Config: &runtimeapi.ContainerConfig{},
			Image: imagespec.ImageConfig{User: user, StopSignal: user, Env: []string{user}, Cmd: []string{"c"}},
		}
		config := &runtimeapi.PodSandboxConfig{}
		if protojson.Unmarshal([]byte(pod), config) != nil || protojson.Unmarshal([]byte(container), c.Config) != nil {
			t.Skip()
		}
		if seed != 0 {
			r := rand.New(rand.NewPCG(seed, 0))
			scramble(r, config.ProtoReflect())
			scramble(r, c.Config.ProtoReflect())
		}
		c.Sandbox.Config = ParsePod(config)
		fakePaths(&c)
		for _, h := range []Host{node, bare} {
			tryAll(t, h, c)
		}
	})
}

func tryAll(t *testing.T, h Host, c Container) {
	valid := ValidateSandbox(h, c.Sandbox.Config)
	_ = Sysctls(c.Sandbox.Config)
	_, stop := StopSignal(c.Config, c.Image)
	_ = Init(h, c.Sandbox, InitFiles{})
	s, err := Build(h, c)
	for _, err := range []error{valid, stop, err} {
		if err != nil && !errors.Is(err, errdefs.ErrInvalidArgument) && !errors.Is(err, errdefs.ErrFailedPrecondition) {
			t.Errorf("an error of no class: %v", err)
		}
	}
	if err != nil || valid != nil {
		return
	}
	if _, err := json.Marshal(s); err != nil {
		t.Error(err)
	}
	if _, err := Exec(s, ExecOptions{Cmd: []string{"x"}}); err != nil {
		t.Error(err)
	}
}

// scramble changes about one field in six, at any depth.
func scramble(r *rand.Rand, m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if r.IntN(6) != 0 {
			if field.Message() != nil && !field.IsList() && !field.IsMap() && m.Has(field) {
				scramble(r, m.Mutable(field).Message())
			}
			continue
		}
		switch {
		case field.IsMap():
			entries := m.Mutable(field).Map()
			entries.Set(randomScalar(r, field.MapKey()).MapKey(), randomScalar(r, field.MapValue()))
		case field.IsList() && field.Message() != nil:
			scramble(r, m.Mutable(field).List().AppendMutable().Message())
		case field.IsList():
			m.Mutable(field).List().Append(randomScalar(r, field))
		case field.Message() != nil:
			scramble(r, m.Mutable(field).Message())
		default:
			m.Set(field, randomScalar(r, field))
		}
	}
}

func randomScalar(r *rand.Rand, field protoreflect.FieldDescriptor) protoreflect.Value {
	words := []string{
		"", "/", ".", "..", "/a", "/a/", "/a/../b", "a", "ALL", "KILL", "\x00", "\xff", "0-3", "2MB", "memory.max",
		"net.ipv4.ping_group_range", "5 10", "localhost/x", "a=b", "v/c=d", "rwm", "noexec", "pod.slice", "/dev", "-1",
	}
	numbers := []int64{math.MinInt64, -1001, -2, -1, 0, 1, 5, 1000, 65536, math.MaxInt32, math.MaxUint32, math.MaxInt64}
	number := numbers[r.IntN(len(numbers))]
	switch field.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(r.IntN(5) - 1))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(number))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(number))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(number)
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(uint64(number))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(words[r.IntN(len(words))]))
	default:
		return protoreflect.ValueOfString(words[r.IntN(len(words))])
	}
}
