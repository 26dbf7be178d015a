package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestATimelineShowsPodAndContainersOnOneScale(t *testing.T) {
	d := &description{
		Status: document{&runtimeapi.PodSandboxStatus{}},
		Info:   []byte(`{"timeline":[{"step":"record","took":1000000},{"step":"network","took":49000000}]}`),
		Containers: []description{{
			Status: document{&runtimeapi.ContainerStatus{Metadata: &runtimeapi.ContainerMetadata{Name: "web\x1b"}}},
			Info:   []byte(`{"timeline":[{"step":"create","took":50000000,"error":"failed\nat it"}]}`),
		}},
	}
	var out bytes.Buffer
	if err := d.timeline(&out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 6 || strings.ContainsRune(out.String(), 0x1b) {
		t.Fatalf("%q", lines)
	}
	for i, want := range []struct {
		text  string
		bar   int
		after int
	}{{"pod                              50.0 ms", 0, 0}, {"  record", 0, 0}, {"  network", 25, 0}, {"container web", 0, 0}, {"  create", 25, 25}} {
		if !strings.HasPrefix(lines[i], want.text) || strings.Count(lines[i], "█") != want.bar {
			t.Errorf("%q", lines[i])
		}
		if _, bar, ok := strings.Cut(lines[i], " ms  "); ok && strings.Count(bar, " ") < want.after {
			t.Errorf("%q does not begin where the one before ends", lines[i])
		}
	}
	if !strings.Contains(lines[4], "failed") {
		t.Errorf("%q", lines[4])
	}
}

func TestWithoutATimelineThatIsSaid(t *testing.T) {
	for _, info := range []string{"", "{}", `{"timeline":null}`, `{"timeline":[]}`} {
		var out bytes.Buffer
		d := &description{Info: []byte(info)}
		if err := d.timeline(&out); err != nil || !strings.HasPrefix(out.String(), "There is no timeline") {
			t.Errorf("%q: %q %v", info, out.String(), err)
		}
	}
	if err := (&description{Info: []byte(`{"timeline":1}`)}).timeline(&bytes.Buffer{}); err == nil {
		t.Error("a timeline that cannot be read is accepted")
	}
	if column(-time.Second, time.Second) != 0 || column(2*time.Second, time.Second) != barWidth {
		t.Error("a bar leaves the picture")
	}
}
