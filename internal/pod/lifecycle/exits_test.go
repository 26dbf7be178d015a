package lifecycle

import (
	"testing"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
)

func TestHowAContainerEndedIsSaidInCRIsWords(t *testing.T) {
	for _, c := range []struct {
		exit wire.Exit
		want pod.ExitStatus
	}{
		{wire.Exit{Code: 0}, pod.ExitStatus{Code: 0, Reason: "Completed"}},
		{wire.Exit{Code: 3}, pod.ExitStatus{Code: 3, Reason: "Error"}},
		{wire.Exit{Code: 143, Signal: 15}, pod.ExitStatus{Code: 143, Reason: "Error"}},
		{wire.Exit{Code: 137, Signal: 9, OOMKilled: true}, pod.ExitStatus{Code: 137, Reason: "OOMKilled"}},
		{wire.Exit{Code: 0, Unknown: true}, pod.ExitStatus{Code: unknownExit, Reason: "Unknown"}},
	} {
		got := exitStatus(c.exit)
		if got.Code != c.want.Code || got.Reason != c.want.Reason {
			t.Errorf("%+v: %+v, want %+v", c.exit, got, c.want)
		}
	}
}
