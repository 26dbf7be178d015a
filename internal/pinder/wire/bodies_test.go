package wire

import (
	"encoding/json"
	"testing"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
)

// A daemon and a pinder of other releases read and write these keys.
func TestTheKeysOfBodiesStay(t *testing.T) {
	process := proc.Process{PID: 7, Start: 9}
	for want, body := range map[string]any{
		`{"pid":7,"startTime":9,"cgroup":"/c"}`: Created{Process: process, Cgroup: "/c"},
		`{"id":"a","phase":"running","pid":7,"startTime":9,"cgroup":"/c","exit":{"id":"a","code":0,"at":1}}`: Container{ID: "a", Phase: PhaseRunning, Process: process, Cgroup: "/c", Exit: &Exit{ID: "a", At: 1}},
		`{"id":"a","bundle":"/b","runtime":{"binary":"/r","root":"/s"},"pid":7,"startTime":9}`:               Adopt{ID: "a", Bundle: "/b", Runtime: Runtime{Binary: "/r", Root: "/s"}, Process: process},
	} {
		if got, err := json.Marshal(body); err != nil || string(got) != want {
			t.Errorf("%T: %s, %v; want %s", body, got, err, want)
		}
	}
}
