package main

import (
	"encoding/xml"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestOptionsAreCheckedBeforeAnythingIsStarted(t *testing.T) {
	o, err := parse([]string{"-only", "exec,crowd", "-rounds", "2", "-cri", "/x.sock"})
	if err != nil || !o.measures("exec") || o.measures("pods") || o.rounds != 2 || o.socket != "/x.sock" {
		t.Error(o, err)
	}
	for _, bad := range [][]string{{"-only", "pod"}, {"-only", ""}, {"-rounds", "0"}, {"-pods", "-1"}, {"-crowd", "-1"}, {"more"}, {"-news"}} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestQuantilesAreOfTheSortedValues(t *testing.T) {
	values := []float64{5, 1, 4, 2, 3}
	for part, want := range map[float64]float64{0: 1, 0.5: 3, 0.9: 5, 0.99: 5, 1: 5} {
		if got := quantile(values, part); got != want {
			t.Errorf("%v: %v", part, got)
		}
	}
	if values[0] != 5 || quantile(nil, 0.5) != 0 {
		t.Error(values)
	}
}

// measured is a result with two subjects, of which one lacks a call.
func measured() *result {
	r := &result{Date: "2026-01-02", Machine: "2 processors", Kernel: "6.18.1", Tools: []string{"a", "b"}, Rounds: 1, Values: map[string]map[string]samples{}}
	const what = "user namespace, 1 container(s), 1 at a time"
	ours, bare := r.of("pinfold", what), r.of(floorName, what)
	for i := range 3 {
		took := time.Duration(i+1) * time.Millisecond
		for _, call := range []string{"RunPodSandbox", "CreateContainer", "StartContainer", "pod ready"} {
			ours.add(call, took)
		}
		bare.add("pod ready", took/2)
	}
	ours.value("pods a second", 12.345)
	return r
}

func TestATableHasAllSubjectsAndWhatIsMissingIsADash(t *testing.T) {
	got := measured().text()
	for _, line := range []string{
		"| user namespace, 1 container(s), 1 at a time | pinfold | the floor |",
		"| RunPodSandbox, ms (p50 / p90 / p99) | 2.00 / 3.00 / 3.00 | – |",
		"| pod ready, ms (p50 / p90 / p99) | 2.00 / 3.00 / 3.00 | 1.00 / 1.50 / 1.50 |",
		"| pods a second | 12.3 | – |",
	} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("%q is missing in\n%s", line, got)
		}
	}
}

func TestResultsAreReadAsTheyWereWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "results.json")
	r := measured()
	if err := r.write(path); err != nil {
		t.Fatal(err)
	}
	again, err := read(path)
	if err != nil || again.text() != r.text() || again.document() != r.document() {
		t.Error(err)
	}
	if _, err := read(path + ".missing"); err == nil || !strings.Contains(err.Error(), "make bench") {
		t.Error(err)
	}
}

func TestPicturesAreWholeAndNameAllSubjects(t *testing.T) {
	r := measured()
	for _, picture := range []string{r.startPicture(), r.ratesPicture(), chart("a < b & c", []string{"x"}, nil)} {
		decoder := xml.NewDecoder(strings.NewReader(picture))
		for {
			_, err := decoder.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%v in\n%s", err, picture)
			}
		}
	}
	if p := r.startPicture(); !strings.Contains(p, "pinfold") || !strings.Contains(p, floorName) || !strings.Contains(p, "prefers-color-scheme:dark") {
		t.Error(p)
	}
}
