package recovery

import "github.com/pinfold-run/pinfold/internal/pod"

// Found is what became of an object at the start of the daemon.
type Found struct {
	// Kind is "sandbox" or "container".
	Kind string
	// Result is one of the results below.
	Result string
}

// The results of a start, for one object.
const (
	// Kept: as the daemon before left it.
	Kept = "kept"
	// Ended: it ended while the daemon did not run.
	Ended = "ended"
	// Unfinished: its creation or removal was interrupted. It is finished while the daemon serves.
	Unfinished = "unfinished"
	// Unreadable: its record could not be read, and was moved to the quarantine.
	Unreadable = "unreadable"
	// Unrecorded: it is alive and has no record. It is left alone.
	Unrecorded = "unrecorded"
)

// none are the results of a start that found nothing. Each has a number, so that alerts have a series.
func none() map[Found]int {
	all := map[Found]int{}
	for _, kind := range []string{"sandbox", "container"} {
		for _, result := range []string{Kept, Ended, Unfinished, Unreadable, Unrecorded} {
			all[Found{kind, result}] = 0
		}
	}
	return all
}

// Found returns how many objects there are of each result. Load and Reconcile have returned.
func (r *Recovery) Found() map[Found]int { return r.results }

// LeftoversRemoved is how many pods and containers without a record had only remains, which were removed.
func (r *Recovery) LeftoversRemoved() int { return r.removed }

func (r *Recovery) note(kind, result string) { r.results[Found{kind, result}]++ }

func (r *Recovery) noteContainer(before, after pod.State) {
	switch {
	case before == pod.Creating || before == pod.Removing:
		r.note("container", Unfinished)
	case before != after && after == pod.Exited:
		r.note("container", Ended)
	default:
		r.note("container", Kept)
	}
}

func (r *Recovery) noteSandbox(before, after pod.State) {
	switch {
	case before == pod.Creating || before == pod.Removing:
		r.note("sandbox", Unfinished)
	case before == pod.Ready && after != pod.Ready:
		r.note("sandbox", Ended)
	default:
		r.note("sandbox", Kept)
	}
}
