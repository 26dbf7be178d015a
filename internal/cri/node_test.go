package cri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/image/registry"
	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/stats"
)

func TestACredentialIsPassedOnWhole(t *testing.T) {
	if auth(nil) != nil {
		t.Error("no credential became one")
	}
	got := auth(&runtimeapi.AuthConfig{Username: "u", Password: "p", Auth: "a", ServerAddress: "s", IdentityToken: "i", RegistryToken: "r"})
	if want := (registry.Auth{Username: "u", Password: "p", Auth: "a", ServerAddress: "s", IdentityToken: "i", RegistryToken: "r"}); *got != want {
		t.Errorf("got %+v, want %+v", *got, want)
	}
}

func TestAConditionIsTrueWithoutAProblemAndElseSaysIt(t *testing.T) {
	if got := condition(runtimeapi.NetworkReady, "NetworkPluginNotReady", nil); !got.Status || got.Reason != "" || got.Message != "" {
		t.Errorf("without a problem: %v", got)
	}
	got := condition(runtimeapi.NetworkReady, "NetworkPluginNotReady", errors.New("no plugin"))
	if got.Type != runtimeapi.NetworkReady || got.Status || got.Reason != "NetworkPluginNotReady" || got.Message != "no plugin" {
		t.Errorf("with a problem: %v", got)
	}
}

func TestTheVersionOfTheAPIIsTheKubelets(t *testing.T) {
	got, err := (&node{Node: Node{Release: "1.2.3"}}).Version(context.Background(), &runtimeapi.VersionRequest{Version: "whatever"})
	if err != nil || got.Version != "0.1.0" || got.RuntimeApiVersion != "v1" || got.RuntimeName != "pinfold" || got.RuntimeVersion != "1.2.3" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestTheKubeletIsToldTheCgroupDriver(t *testing.T) {
	for systemd, want := range map[bool]runtimeapi.CgroupDriver{
		true: runtimeapi.CgroupDriver_SYSTEMD, false: runtimeapi.CgroupDriver_CGROUPFS,
	} {
		n := &node{Node: Node{Host: ocispec.Host{SystemdCgroup: systemd}}}
		if got, err := n.RuntimeConfig(context.Background(), nil); err != nil || got.GetLinux().GetCgroupDriver() != want {
			t.Errorf("systemd %t: %v, %v", systemd, got, err)
		}
	}
}

// A kubelet compares the paths, not devices: two would make it think of two file systems.
func TestImagesAndLayersOnOneFileSystemHaveOnePath(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"images", "pods"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if images, layers := filesystems(root); images != root || layers != root {
		t.Errorf("on one file system: %s and %s", images, layers)
	}
	// /proc stands for another file system.
	if err := errors.Join(os.Remove(filepath.Join(root, "pods")), os.Symlink("/proc", filepath.Join(root, "pods"))); err != nil {
		t.Fatal(err)
	}
	if images, layers := filesystems(root); images != filepath.Join(root, "images") || layers != filepath.Join(root, "pods") {
		t.Errorf("on two file systems: %s and %s", images, layers)
	}
	if err := errors.Join(os.Remove(filepath.Join(root, "images")), os.Symlink("/proc", filepath.Join(root, "images"))); err != nil {
		t.Fatal(err)
	}
	if images, layers := filesystems(root); images != filepath.Join(root, "images") || layers != images {
		t.Errorf("both on one that is not the root's: %s and %s", images, layers)
	}
}

func TestAStreamHasEveryItemOnceInMessagesOfBoundedSize(t *testing.T) {
	for _, c := range []struct{ items, size, messages int }{{0, 10, 0}, {1, 10, 1}, {10, 10, 1}, {11, 10, 2}, {25, 10, 3}} {
		list := make([]int, c.items)
		for i := range list {
			list[i] = i
		}
		var got []int
		messages := 0
		err := inBatchesOf(c.size, list, func(batch []int) error {
			if len(batch) == 0 || len(batch) > c.size {
				t.Errorf("%+v: a message of %d", c, len(batch))
			}
			messages++
			got = append(got, batch...)
			return nil
		})
		if err != nil || messages != c.messages || !slices.Equal(got, list) {
			t.Errorf("%+v: %d messages, %v, %v", c, messages, got, err)
		}
	}
	gone := errors.New("the client is gone")
	sent := 0
	if err := inBatchesOf(1, []int{1, 2, 3}, func([]int) error { sent++; return gone }); !errors.Is(err, gone) || sent != 1 {
		t.Errorf("after a failure: %v, %d messages", err, sent)
	}
}

func number(n uint64) *uint64 { return &n }

func TestUsageIsInCRIsWordsAndWhatTheKernelDoesNotTellIsMissing(t *testing.T) {
	at := time.Unix(0, 100)
	stall := &stats.Pressure{Some: stats.Stall{Avg10: 1, Avg60: 2, Avg300: 3, Total: 4}, Full: stats.Stall{Total: 5}}
	used := containerUsage{rec: containerRecord("c", "s", pod.Running), usage: &stats.Usage{
		At:  at,
		CPU: &stats.CPU{Usage: number(10), Rate: number(11), Pressure: stall},
		Memory: &stats.Memory{
			Usage: number(1000), Limit: number(2000), Stat: &stats.MemoryStat{Anonymous: 12, InactiveFile: 100, PageFaults: 13, MajorFaults: 14},
		},
		Swap:  &stats.Swap{Usage: number(15), Limit: number(20)},
		IO:    &stats.IO{},
		Layer: &stats.Layer{Bytes: 16, Inodes: 17, At: time.Unix(0, 90)},
	}}
	shown(t, "all", used.toStats("/layers"), `{
		"attributes": {"id": "c", "metadata": {"name": "app"}, "labels": {"app": "c"}},
		"cpu": {"timestamp": "100", "usageCoreNanoSeconds": {"value": "10"}, "usageNanoCores": {"value": "11"},
			"psi": {"Some": {"Total": "4", "Avg10": 1, "Avg60": 2, "Avg300": 3}, "Full": {"Total": "5"}}},
		"memory": {"timestamp": "100", "workingSetBytes": {"value": "900"}, "availableBytes": {"value": "1100"}, "usageBytes": {"value": "1000"},
			"rssBytes": {"value": "12"}, "pageFaults": {"value": "13"}, "majorPageFaults": {"value": "14"}},
		"swap": {"timestamp": "100", "swapUsageBytes": {"value": "15"}, "swapAvailableBytes": {"value": "5"}},
		"io": {"timestamp": "100"},
		"writableLayer": {"timestamp": "90", "fsId": {"mountpoint": "/layers"}, "usedBytes": {"value": "16"}, "inodesUsed": {"value": "17"}}}`)
	used.usage = &stats.Usage{At: at, Memory: &stats.Memory{Usage: number(7)}}
	shown(t, "little", used.toStats("/layers"), `{
		"attributes": {"id": "c", "metadata": {"name": "app"}, "labels": {"app": "c"}},
		"memory": {"timestamp": "100", "workingSetBytes": {"value": "7"}, "usageBytes": {"value": "7"}}}`)
	used.usage = nil
	shown(t, "one that does not run", used.toStats("/layers"), `{"attributes": {"id": "c", "metadata": {"name": "app"}, "labels": {"app": "c"}}}`)
}

func TestAPodsUsageHasItsContainers(t *testing.T) {
	used := podUsage{
		rec: sandboxRecord("s", pod.Ready, nil), usage: &stats.Usage{At: time.Unix(0, 100), Tasks: &stats.Tasks{Processes: number(3)}},
		containers: []containerUsage{{rec: containerRecord("c", "s", pod.Running)}},
	}
	got := used.toStats("/layers")
	if got.Attributes.GetId() != "s" || got.Linux.GetProcess().GetProcessCount().GetValue() != 3 || got.Linux.GetNetwork() != nil ||
		len(got.Linux.GetContainers()) != 1 || got.Linux.Containers[0].GetAttributes().GetId() != "c" {
		t.Errorf("got %v", got)
	}
}

func TestEveryMetricHasAsManyLabelValuesAsLabels(t *testing.T) {
	descriptors, err := (&statistics{}).ListMetricDescriptors(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string][]string{}
	for _, d := range descriptors.Descriptors {
		if keys[d.Name] != nil {
			t.Errorf("%s is described twice", d.Name)
		}
		if d.Help == "" {
			t.Errorf("%s has no help", d.Name)
		}
		keys[d.Name] = d.LabelKeys
	}
	subject := stats.Subject{
		Usage: &stats.Usage{
			CPU: &stats.CPU{Usage: number(1e9)}, Memory: &stats.Memory{Usage: number(2)}, Swap: &stats.Swap{Usage: number(3)},
			IO: &stats.IO{Devices: []stats.Device{{Name: "/dev/sda", ReadBytes: 5}}}, Tasks: &stats.Tasks{Processes: number(6)},
		},
		Network: []stats.Interface{{Name: "eth0"}},
		Started: time.Unix(9, 0),
	}
	labels := []string{"app", "/group", "busybox", "c", "shop", "web"}
	if len(labels) != len(commonLabels) {
		t.Fatal("the test knows other labels")
	}
	got := measure(subject, labels)
	if len(got) == 0 {
		t.Fatal("no metrics")
	}
	for _, m := range got {
		if len(m.LabelValues) != len(keys[m.Name]) || !slices.Equal(m.LabelValues[:len(labels)], labels) {
			t.Errorf("%s has the values %v of %v", m.Name, m.LabelValues, keys[m.Name])
		}
	}
}

func TestShutdownEndsAStreamOfEvents(t *testing.T) {
	log := pod.NewEvents(pod.NewBook())
	stream := log.Subscribe()
	defer stream.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := sendEvents(ctx, stream, func(*runtimeapi.ContainerEventResponse) error { return fmt.Errorf("sent") })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a stream whose client is gone ends with %v", err)
	}
}
