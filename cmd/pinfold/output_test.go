package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/timestamppb"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	pinfoldv1 "github.com/pinfold-run/pinfold/api/pinfold/v1"
)

// golden compares a text with a file of testdata, and writes the file with -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || got != string(want) {
		t.Errorf("%s: %v; `go test ./cmd/pinfold -update` writes it. Got:\n%s", file, err, got)
	}
}

const hostile = "evil\x1b[2J\u202e\u009b31m\n\t\"'<&>"

var epoch = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

func examplePods() []*runtimeapi.PodSandboxStatusResponse {
	ids := []*runtimeapi.IDMapping{{HostId: 1048576, Length: podIDs}}
	return []*runtimeapi.PodSandboxStatusResponse{
		{
			Status: &runtimeapi.PodSandboxStatus{
				Id: strings.Repeat("4f1c", 16), Metadata: &runtimeapi.PodSandboxMetadata{Name: "web", Namespace: "pinfold", Uid: "u"},
				CreatedAt: epoch.Add(-time.Hour).UnixNano(), Network: &runtimeapi.PodSandboxNetworkStatus{Ip: "10.88.0.7"}, RuntimeHandler: "runc",
				Linux: &runtimeapi.LinuxPodSandboxStatus{Namespaces: &runtimeapi.Namespace{Options: &runtimeapi.NamespaceOption{
					UsernsOptions: &runtimeapi.UserNamespace{Uids: ids, Gids: ids},
				}}},
			},
			ContainersStatuses: []*runtimeapi.ContainerStatus{
				{Id: strings.Repeat("ab", 32), Metadata: &runtimeapi.ContainerMetadata{Name: "web"}, State: runtimeapi.ContainerState_CONTAINER_EXITED},
				{Id: strings.Repeat("cd", 32), Metadata: &runtimeapi.ContainerMetadata{Name: "side"}, State: runtimeapi.ContainerState_CONTAINER_RUNNING},
			},
		},
		{Status: &runtimeapi.PodSandboxStatus{
			Id: strings.Repeat("5a2d", 16), Metadata: &runtimeapi.PodSandboxMetadata{Name: hostile, Namespace: "team-a"},
			State: runtimeapi.PodSandboxState_SANDBOX_NOTREADY, CreatedAt: epoch.UnixNano(),
		}},
	}
}

func TestOutputIsStableInEveryFormat(t *testing.T) {
	images := &runtimeapi.ListImagesResponse{Images: []*runtimeapi.Image{
		{Id: "sha256:" + strings.Repeat("7f43", 16), RepoTags: []string{"docker.io/library/busybox:latest"}, RepoDigests: []string{"docker.io/library/busybox@sha256:" + strings.Repeat("a478", 16)}, Size: 2093056, Pinned: true},
		{Id: "sha256:" + strings.Repeat("1", 64)},
	}}
	status := &runtimeapi.StatusResponse{
		Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
			{Type: "RuntimeReady", Status: true}, {Type: "NetworkReady", Reason: "NoConfiguration", Message: "no network configuration in /etc/cni/net.d"},
		}},
		RuntimeHandlers: []*runtimeapi.RuntimeHandler{{Features: &runtimeapi.RuntimeHandlerFeatures{UserNamespaces: true}}, {Name: "crun"}},
		Info:            map[string]string{"info": `{"debts":2}`},
	}
	for _, f := range []format{formatTable, formatJSON, formatYAML} {
		for name, show := range map[string]func(*tool, *output) error{
			"ps":     func(t *tool, o *output) error { return printPods(t, o, examplePods()) },
			"images": func(t *tool, o *output) error { return printImages(t, o, images) },
			"status": func(t *tool, o *output) error { return printStatus(t, o, status) },
		} {
			var out, errs bytes.Buffer
			err := show(&tool{out: &out, errs: &errs, now: func() time.Time { return epoch }}, &output{format: f})
			if (err != nil) != (name == "status") {
				t.Errorf("%s: %v", name, err)
			}
			golden(t, name+"."+string(f), out.String())
			if name == "status" && (!errors.Is(err, exitCode(1)) || errs.String() != "pinfold: the node is not ready: NetworkReady is false: NoConfiguration: no network configuration in /etc/cni/net.d\n") {
				t.Errorf("a node that is not ready: %v %q", err, errs.String())
			}
		}
	}
}

func TestNothingThatSteersATerminalIsPrintedInAnyFormatAndNoTextIsLost(t *testing.T) {
	for _, f := range []format{formatTable, formatJSON, formatYAML} {
		for _, noTrunc := range []bool{false, true} {
			var out bytes.Buffer
			if err := printPods(&tool{out: &out, now: time.Now}, &output{format: f, noTrunc: noTrunc}, examplePods()); err != nil {
				t.Fatal(err)
			}
			for _, r := range out.String() {
				if r != '\n' && !unicode.IsPrint(r) {
					t.Errorf("%s has %q", f, r)
				}
			}
			var list struct {
				Items []struct {
					Status struct{ Metadata struct{ Name string } }
				}
			}
			var err error
			switch f {
			case formatJSON:
				err = json.Unmarshal(out.Bytes(), &list)
			case formatYAML:
				err = yaml.Unmarshal(out.Bytes(), &list)
			default:
				continue
			}
			if err != nil || len(list.Items) != 2 || list.Items[1].Status.Metadata.Name != hostile {
				t.Errorf("%s: %v %+v", f, err, list)
			}
		}
	}
}

func TestJSONHasEveryKeyAlsoOfZeroValues(t *testing.T) {
	data, err := marshal(podList{Items: []document{{examplePods()[0]}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"state": "SANDBOX_READY"`, `"exitCode": 0`, `"attempt": 0`, `"reason": ""`} {
		if !strings.Contains(string(data), part) {
			t.Errorf("%s is missing:\n%s", part, data)
		}
	}
	data, err = marshal(&pinfoldv1.ListOperationsResponse{Operations: []*pinfoldv1.Operation{{Name: "PullImage", Began: timestamppb.New(epoch), Pull: &pinfoldv1.PullProgress{}}}})
	if err != nil || !strings.Contains(string(data), `"totalBytes": "0"`) || !strings.Contains(string(data), `"done": []`) || !strings.Contains(string(data), `"began": "2026-01-31T12:00:00Z"`) {
		t.Errorf("%v\n%s", err, data)
	}
	if data, err := marshal(nodeReport{Info: rawInfo(map[string]string{"info": "no JSON"})}); err != nil || !strings.Contains(string(data), `"info": null`) {
		t.Errorf("info of another form: %v %s", err, data)
	}
}

func TestIDsAreShortInTablesAndWholeOtherwise(t *testing.T) {
	r := &runtimeNamed{name: "pinfold", pods: examplePods(), images: []*runtimeapi.Image{{Id: "sha256:12"}}}
	socket := r.serve(t)
	whole := strings.Repeat("4f1c", 16)
	if code, out, errs := call(t, "--socket", socket, "ps", "-q"); code != 0 || out != whole+"\n" {
		t.Errorf("exit code %d: %q %q", code, out, errs)
	}
	if code, out, _ := call(t, "--socket", socket, "ps", "-a", "-q"); code != 0 || strings.Count(out, "\n") != 2 {
		t.Errorf("all: %q", out)
	}
	if _, out, _ := call(t, "--socket", socket, "ps"); !strings.Contains(out, whole[:12]+" ") || strings.Contains(out, "team-a") {
		t.Errorf("the table: %s", out)
	}
	if _, out, _ := call(t, "--socket", socket, "ps", "--no-trunc"); !strings.Contains(out, whole) {
		t.Errorf("the wide table: %s", out)
	}
	if code, out, errs := call(t, "--socket", socket, "image", "list"); code != 0 || !strings.Contains(out, "\n12  ") {
		t.Errorf("an ID that is too short: exit code %d: %q %q", code, out, errs)
	}
	if code, out, _ := call(t, "__complete", "--socket", socket, "logs", ""); code != 0 || !strings.Contains(out, "web\tpinfold "+whole[:12]) || strings.Contains(out, "\x1b") {
		t.Errorf("completion: %q", out)
	}
}

func TestSizesHaveOneDecimalUnit(t *testing.T) {
	for bytes, want := range map[uint64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_950: "1.0 MB", 2093056: "2.1 MB", 1 << 63: "9.2 EB"} {
		if got := sizeText(bytes); got != want {
			t.Errorf("%d: %q, want %q", bytes, got, want)
		}
	}
}

func TestTheProgressOfAPullHasBytesLayersAndTheRate(t *testing.T) {
	s := pullProgress{name: "registry.example/x:1", began: epoch}
	line := func(after time.Duration, width int, p *pinfoldv1.PullProgress) string {
		return s.line(p, epoch.Add(after), width)
	}
	if got := line(0, 0, nil); got != "registry.example/x:1: looking up the manifest" {
		t.Errorf("%q", got)
	}
	p := &pinfoldv1.PullProgress{Bytes: 5e6, TotalBytes: 20e6, Layers: 3, LayersDone: 1}
	if got := line(time.Second, 0, p); got != "registry.example/x:1: [=====               ]  25%  5.0 MB of 20.0 MB  1 of 3 layers unpacked" {
		t.Errorf("%q", got)
	}
	p.Bytes = 15e6 // 10 MB in two seconds; what was there before does not count
	if got := line(3*time.Second, 0, p); !strings.HasSuffix(got, "75%  15.0 MB of 20.0 MB  1 of 3 layers unpacked  5.0 MB/s") {
		t.Errorf("%q", got)
	}
	if got := line(3*time.Second, 40, p); len([]rune(got)) != 39 || !strings.HasSuffix(got, "MB/s") {
		t.Errorf("on a narrow terminal: %q", got)
	}
	for _, odd := range []*pinfoldv1.PullProgress{{Layers: 1}, {Layers: 1, Bytes: -5, TotalBytes: -7}, {Layers: 1, Bytes: 9, TotalBytes: 1}} {
		if got := line(4*time.Second, 0, odd); !strings.Contains(got, "%") || strings.Contains(got, "-") {
			t.Errorf("%v: %q", odd, got)
		}
	}
}
