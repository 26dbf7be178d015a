package nri

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// base is a configuration to be adjusted.
func base() *specs.Spec {
	limit := int64(1 << 30)
	return &specs.Spec{
		Process:     &specs.Process{Args: []string{"old"}, Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_CORE"}, {Type: "RLIMIT_NOFILE", Hard: 9, Soft: 9}}},
		Annotations: map[string]string{"keep": "1", "drop": "1"},
		Mounts:      []specs.Mount{{Destination: "/a/b"}, {Destination: "/gone"}, {Destination: "/same", Source: "old"}},
		Linux: &specs.Linux{
			Sysctl:     map[string]string{"net.a": "1"},
			Devices:    []specs.LinuxDevice{{Path: "/dev/old"}},
			Namespaces: []specs.LinuxNamespace{{Type: specs.NetworkNamespace, Path: "/pin"}, {Type: specs.IPCNamespace}},
			Resources:  &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}},
		},
	}
}

// whole is an adjustment of everything that can be adjusted.
func whole() *api.ContainerAdjustment {
	a := &api.ContainerAdjustment{}
	a.RemoveAnnotation("drop")
	a.AddAnnotation("add", "2")
	a.SetArgs([]string{"new"})
	a.RemoveMount("/gone")
	a.AddMount(&api.Mount{Destination: "/same", Source: "new", Options: []string{"rbind", "rshared"}})
	a.AddMount(&api.Mount{Destination: "/a", Source: "parent"})
	a.AddRlimit("RLIMIT_NOFILE", 20, 10)
	a.RemoveDevice("/dev/old")
	a.AddDevice(&api.LinuxDevice{Path: "/dev/new", Type: "c", Major: 1, Minor: 2})
	a.SetLinuxMemoryLimit(1 << 20)
	a.SetLinuxCPUShares(7)
	a.SetLinuxPidLimits(5)
	a.AddLinuxUnified("memory.high", "9")
	a.SetLinuxCgroupsPath("/elsewhere")
	score := 300
	a.SetLinuxOomScoreAdj(&score)
	a.SetLinuxSysctl("net.b", "2")
	a.Linux.Sysctl[api.MarkForRemoval("net.a")] = ""
	a.AddOrReplaceNamespace(&api.LinuxNamespace{Type: "network", Path: "/other"})
	a.RemoveNamespace(&api.LinuxNamespace{Type: "ipc"})
	a.AddHooks(&api.Hooks{Poststop: []*api.Hook{{Path: "/hook"}}})
	a.AddCDIDevice(&api.CDIDevice{Name: "v/c=d"})
	return a
}

func TestEveryPartOfAnAdjustmentIsMade(t *testing.T) {
	config := base()
	var injected []string
	p := &Plugins{Config: Config{InjectCDI: func(_ *specs.Spec, names []string) error { injected = names; return nil }}}
	if err := p.adjust(config, whole()); err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"ociVersion":"","process":{"user":{"uid":0,"gid":0},"args":["new"],"cwd":"","rlimits":[{"type":"RLIMIT_CORE","hard":0,"soft":0},{"type":"RLIMIT_NOFILE","hard":20,"soft":10}],"oomScoreAdj":300},` +
		`"mounts":[{"destination":"/same","source":"new","options":["rbind","rshared"]},{"destination":"/a","source":"parent"},{"destination":"/a/b"}],` +
		`"hooks":{"poststop":[{"path":"/hook"}]},"annotations":{"add":"2","keep":"1"},` +
		`"linux":{"sysctl":{"net.b":"2"},"resources":{"devices":[{"allow":true,"type":"c","major":1,"minor":2,"access":"rw"}],"memory":{"limit":1048576,"swap":1048576},"cpu":{"shares":7},"pids":{"limit":5},"unified":{"memory.high":"9"}},` +
		`"cgroupsPath":"/elsewhere","namespaces":[{"type":"network","path":"/other"}],"devices":[{"path":"/dev/new","type":"c","major":1,"minor":2}],"rootfsPropagation":"rshared"}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !slices.Equal(injected, []string{"v/c=d"}) {
		t.Errorf("CDI devices %v", injected)
	}
}

func TestAPriorityOfNoClassIsRemoved(t *testing.T) {
	config := base()
	for class, want := range map[api.IOPrioClass]*specs.LinuxIOPriority{
		api.IOPrioClass_IOPRIO_CLASS_NONE: nil,
		api.IOPrioClass_IOPRIO_CLASS_IDLE: {Class: specs.IOPRIO_CLASS_IDLE, Priority: 3},
	} {
		config.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_RT}
		a := &api.ContainerAdjustment{}
		a.SetLinuxIOPriority(&api.LinuxIOPriority{Class: class, Priority: 3})
		if err := (&Plugins{}).adjust(config, a); err != nil || !reflect.DeepEqual(config.Process.IOPriority, want) {
			t.Errorf("%v: %v, %v", class, err, config.Process.IOPriority)
		}
	}
}

func TestAnAdjustmentThatCannotBeMadeIsAnError(t *testing.T) {
	class := &api.ContainerAdjustment{}
	class.SetLinuxBlockIOClass("gold")
	namespace := &api.ContainerAdjustment{}
	namespace.AddOrReplaceNamespace(&api.LinuxNamespace{Type: "galaxy"})
	for word, a := range map[string]*api.ContainerAdjustment{"gold": class, "galaxy": namespace} {
		if err := (&Plugins{}).adjust(base(), a); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v", word, err)
		}
	}
}

func TestResourcesKeepTheirMeaningInNRIsWords(t *testing.T) {
	r := &runtimeapi.LinuxContainerResources{
		CpuPeriod: 100000, CpuQuota: -1, CpuShares: 2, MemoryLimitInBytes: 4096, MemorySwapLimitInBytes: 8192,
		CpusetCpus: "0-1", CpusetMems: "0", Unified: map[string]string{"a": "b"},
		HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: 1}},
	}
	if back := toCRI(fromCRI(r), nil); !proto.Equal(r, back) {
		t.Errorf("got %v, want %v", back, r)
	}
	if got := toCRI(fromCRI(&runtimeapi.LinuxContainerResources{CpuShares: 9}), r); got.CpuShares != 9 || got.MemoryLimitInBytes != 4096 || r.CpuShares != 2 {
		t.Errorf("on top of others: %v, and these are %v", got, r)
	}
}

func TestStopAndRemovalAreToldOnceAndOnlyOfWhatIsKnown(t *testing.T) {
	book := newTold()
	if book.stop("a") || book.remove("a") {
		t.Error("an unknown object's end is told")
	}
	book.add("a", false)
	if !book.has("a") || !book.stop("a") || book.stop("a") || !book.remove("a") || book.remove("a") || book.has("a") {
		t.Error("the end of a known object is not told exactly once")
	}
	book.addRefused("b")
	if book.has("b") || book.stop("b") || !book.remove("b") || book.remove("b") {
		t.Error("a refused object is listed, or its removal not told once")
	}
	book.add("c", true)
	if book.stop("c") || !book.remove("c") {
		t.Error("an object known as stopped is stopped again, or its removal not told")
	}
}
