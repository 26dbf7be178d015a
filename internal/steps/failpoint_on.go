//go:build failpoints

package steps

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const failpointsBuilt = true

// reached acts on the environment variable PINFOLD_FAILPOINT, a comma-separated list of
// "<operation>/<step>/<phase>=<action>". The actions: kill (SIGKILL to this process), error (the
// step fails), stop (SIGSTOP to this process). If PINFOLD_FAILPOINT_ONCE names a file, a point acts
// only while that file is absent, and makes it, so that a restarted process goes on.
func reached(operation, step string, phase Phase) error {
	here := operation + "/" + step + "/" + string(phase)
	for _, entry := range strings.Split(os.Getenv("PINFOLD_FAILPOINT"), ",") {
		point, action, _ := strings.Cut(entry, "=")
		if point != here {
			continue
		}
		if once := os.Getenv("PINFOLD_FAILPOINT_ONCE"); once != "" {
			f, err := os.OpenFile(once, os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return nil
			}
			f.Close()
		}
		switch action {
		case "kill":
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		case "stop":
			_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
		default:
			return fmt.Errorf("fail point %s", here)
		}
	}
	return nil
}
