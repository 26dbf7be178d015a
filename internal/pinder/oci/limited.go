package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// Limited is the command with which pinder sets resource limits on an OCI runtime: "pinder limited LIMITS BINARY
// ARGV…". Go cannot set them between fork and exec, and the supervisor cannot work with a container's limits.
const Limited = "limited"

// limitedCommand is the command that runs the runtime with its limits.
func limitedCommand(rt wire.Runtime, argv []string) (binary string, args []string, err error) {
	limits, err := json.Marshal(rt.Rlimits)
	if err != nil {
		return "", nil, err
	}
	return "/proc/self/exe", append([]string{"pinder", Limited, string(limits), rt.Binary}, argv...), nil
}

// RunLimited sets the limits and becomes the program. It returns only on error.
func RunLimited(args []string) error {
	if len(args) < 3 {
		return errors.New("limited: limits, a program and its arguments are needed")
	}
	var limits []wire.Rlimit
	if err := json.Unmarshal([]byte(args[0]), &limits); err != nil {
		return fmt.Errorf("limited: %w", err)
	}
	for _, l := range limits {
		resource, ok := wire.RlimitResources[l.Type]
		if !ok {
			return fmt.Errorf("limited: %q is not a resource limit", l.Type)
		}
		// syscall has to know of the new limit of open files: it gives the one it knows to every new program. So
		// x/sys's prlimit is not used.
		if err := syscall.Setrlimit(resource, &syscall.Rlimit{Cur: l.Soft, Max: l.Hard}); err != nil {
			return fmt.Errorf("limited: %s soft %d hard %d: %w", l.Type, l.Soft, l.Hard, err)
		}
	}
	return fmt.Errorf("limited: exec %s: %w", args[1], syscall.Exec(args[1], args[2:], os.Environ()))
}
