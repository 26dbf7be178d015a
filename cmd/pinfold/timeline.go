package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// timing is one step of a timeline, as the daemon tells it.
type timing struct {
	Step  string        `json:"step"`
	Took  time.Duration `json:"took"`
	Error string        `json:"error"`
}

// lane is the timeline of one object.
type lane struct {
	name  string
	steps []timing
}

// laneOf reads the timeline in the verbose part of a description. Without one there are no steps.
func laneOf(name string, info json.RawMessage) (lane, error) {
	var has struct {
		Timeline []timing `json:"timeline"`
	}
	if len(info) > 0 {
		if err := json.Unmarshal(info, &has); err != nil {
			return lane{}, fmt.Errorf("timeline of %s: %w", name, err)
		}
	}
	return lane{name, has.Timeline}, nil
}

// timeline draws where the time of a pod's start went: a lane for the pod and for each of its containers, on one scale.
func (d *description) timeline(out io.Writer) error {
	lanes := make([]lane, 0, 1+len(d.Containers))
	own := "container"
	if _, ok := d.Status.message.(*runtimeapi.PodSandboxStatus); ok {
		own = "pod"
	}
	first, err := laneOf(own, d.Info)
	if err != nil {
		return err
	}
	lanes = append(lanes, first)
	for _, c := range d.Containers {
		name := "container"
		if status, ok := c.Status.message.(*runtimeapi.ContainerStatus); ok {
			name += " " + status.GetMetadata().GetName()
		}
		next, err := laneOf(name, c.Info)
		if err != nil {
			return err
		}
		lanes = append(lanes, next)
	}
	return drawTimeline(out, lanes)
}

// barWidth is how many columns the longest bar has.
const barWidth = 50

// drawTimeline draws all lanes from the first start to the last end. Pauses between the lanes, in which nobody worked on
// the pod, take no room.
func drawTimeline(out io.Writer, lanes []lane) error {
	total := time.Duration(0)
	for _, l := range lanes {
		total += l.took()
	}
	if total <= 0 {
		_, err := fmt.Fprintln(out, "There is no timeline: it is of an object that was not started, or by an older version.")
		return err
	}
	before := time.Duration(0)
	for _, l := range lanes {
		if len(l.steps) == 0 {
			continue
		}
		if _, err := fmt.Fprintf(out, "%-30s %9s\n", visible(l.name), milliseconds(l.took())); err != nil {
			return err
		}
		at := before
		for _, s := range l.steps {
			from, to := column(at, total), column(at+s.Took, total)
			bar := strings.Repeat(" ", from) + strings.Repeat("█", to-from)
			if to == from {
				bar = strings.Repeat(" ", from) + "▏"
			}
			if s.Error != "" {
				bar += " " + visible(s.Error)
			}
			if _, err := fmt.Fprintf(out, "  %-28s %9s  %s\n", visible(s.Step), milliseconds(s.Took), bar); err != nil {
				return err
			}
			at += s.Took
		}
		before += l.took()
	}
	return nil
}

// took is the time of all steps together.
func (l lane) took() (total time.Duration) {
	for _, s := range l.steps {
		total += max(s.Took, 0)
	}
	return total
}

func column(at, total time.Duration) int {
	return min(max(int(at*barWidth/total), 0), barWidth)
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
}
