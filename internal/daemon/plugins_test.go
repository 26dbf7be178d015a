package daemon

import (
	"log/slog"
	"net"
	"path/filepath"
	"testing"

	"github.com/pinfold-run/pinfold/internal/config"
)

// A node that is moved from one runtime to the other has both for a time.
func TestTheNodesNRISocketGivesWayToAnotherRuntimes(t *testing.T) {
	dir := t.TempDir()
	usual, own := filepath.Join(dir, "usual.sock"), filepath.Join(dir, "own.sock")
	log := slog.New(slog.DiscardHandler)
	of := func(configured string) string {
		c := &config.Config{State: dir, NRISocket: configured}
		got := withFreeNRISocket(c, usual, log).NRISocket
		if c.NRISocket != configured {
			t.Errorf("the configuration itself was changed: %s", c.NRISocket)
		}
		return got
	}
	if got := of(usual); got != usual {
		t.Errorf("nothing is there: %s", got)
	}
	l, err := net.Listen("unix", usual)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := of(usual); got != filepath.Join(dir, "nri.sock") {
		t.Errorf("another runtime serves there: %s", got)
	}
	// Another path was chosen by the operator: the daemon refuses to start there.
	for _, path := range []string{own, ""} {
		if got := of(path); got != path {
			t.Errorf("%q becomes %q", path, got)
		}
	}
}
