package pinder

import (
	"errors"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// RunInit is process 1 of a pod that shares its PID namespace. It reaps zombies, and returns on SIGTERM; then the
// kernel kills what is left in the namespace.
func RunInit() {
	sigs := make(chan os.Signal, 8)
	signal.Notify(sigs, unix.SIGCHLD, unix.SIGTERM)
	for {
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG|unix.WALL, nil)
			if pid <= 0 && !errors.Is(err, unix.EINTR) {
				break
			}
		}
		if <-sigs == unix.SIGTERM {
			return
		}
	}
}
