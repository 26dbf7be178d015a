//go:build !amd64 && !arm64

package spawn

import "errors"

// Supported says whether this architecture can run lists.
const Supported = false

// Place says where the child is born.
type Place struct{ Namespaces, Cgroup int }

// Child is a child of this process.
type Child struct{ PID, Pidfd int }

// Start fails: there is no assembly for this architecture.
func (l *List) Start(Place) (Child, error) {
	return Child{}, errors.New("this architecture cannot run lists of system calls")
}
