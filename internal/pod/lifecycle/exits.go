package lifecycle

import (
	"time"

	"github.com/pinfold-run/pinfold/internal/pinder/client"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
)

// Exits records how containers ended. What is recorded first stands.
type Exits struct {
	places  *pod.Places
	records *pod.Records
}

// Record records the exit that pinder reports.
func (e Exits) Record(c *pod.Container, exit wire.Exit) { e.record(c, exit.Time(), exitStatus(exit)) }

func (e Exits) record(c *pod.Container, at time.Time, status pod.ExitStatus) {
	if began := c.Starting.Load(); began != 0 && status.Reason != startError && c.Record().State == pod.Created {
		// It ended before its start was recorded. Clients must not see a container stop that they did not see start.
		e.records.NoteContainer(c, func(r *pod.ContainerRecord) {
			if r.State == pod.Created {
				r.State, r.Times.Started = pod.Running, time.Unix(0, began)
			}
		})
	}
	first := false
	saved := e.records.NoteContainer(c, func(r *pod.ContainerRecord) {
		first = r.State == pod.Created || r.State == pod.Running
		if !first {
			return
		}
		if r.Times.Started.IsZero() {
			r.Times.Started = at
		}
		r.State, r.Times.Finished, r.Exit = pod.Exited, at, status
	})
	if !first {
		return
	}
	if !saved {
		// Until it is, pinder must not forget the exit: see Containers.reduce.
		c.Unsaved.Store(true)
	}
	close(c.Ended)
}

// RecordLost records an end that was not seen: as pinder's exit file says, if there is one.
func (e Exits) RecordLost(c *pod.Container, otherwise string) {
	exit, found, err := client.ReadExit(e.places.Exit(c.Sandbox, c.ID))
	if found && err == nil {
		e.Record(c, exit)
		return
	}
	e.record(c, time.Now(), pod.ExitStatus{Code: unknownExit, Reason: "Unknown", Message: otherwise})
}

// exitStatus translates an exit of pinder into CRI's words.
func exitStatus(e wire.Exit) pod.ExitStatus {
	status := pod.ExitStatus{Code: e.Code, Signal: e.Signal, Reason: "Completed"}
	switch {
	case e.Unknown:
		status = pod.ExitStatus{
			Code: unknownExit, Reason: "Unknown",
			Message: "the container ended while neither pinfoldd nor pinder was there to learn how",
		}
	case e.OOMKilled:
		status.Reason = "OOMKilled"
	case e.Code != 0:
		status.Reason = "Error"
	}
	return status
}

const (
	// unknownExit is what CRI's clients show for an exit code that is not known.
	unknownExit = 255
	// startErrorExit and startError are the end of a container whose program never ran.
	startErrorExit = 128
	startError     = "StartError"
)
