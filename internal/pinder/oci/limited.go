package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// Limited is the command of pinder by which it gives an OCI runtime resource limits: "pinder limited LIMITS BINARY
// ARGV…". Go has no way to set them between fork and exec, and a supervisor with a container's limits could do
// nothing else.
const Limited = "limited"

// limitedCommand is the command that runs the runtime with its limits.
func limitedCommand(rt wire.Runtime, argv []string) (binary string, args []string, err error) {
	limits, err := json.Marshal(rt.Rlimits)
	if err != nil {
		return "", nil, err
	}
	return "/proc/self/exe", append([]string{"pinder", Limited, string(limits), rt.Binary}, argv...), nil
}

// RunLimited sets the limits and becomes the program. It returns only if that cannot be.
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
		// Not x/sys's prlimit: syscall has to know that the number of open files is no longer the one it had at the
		// start, which it gives to every new program.
		if err := syscall.Setrlimit(resource, &syscall.Rlimit{Cur: l.Soft, Max: l.Hard}); err != nil {
			return fmt.Errorf("limited: %s soft %d hard %d: %w", l.Type, l.Soft, l.Hard, err)
		}
	}
	return fmt.Errorf("limited: exec %s: %w", args[1], syscall.Exec(args[1], args[2:], os.Environ()))
}
