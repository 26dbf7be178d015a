package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/pin"
)

// sharedMount is the file with the ID of the mount that this instance made of the directory of network namespaces.
func sharedMount(paths pod.Paths) string { return filepath.Join(paths.State, "netns.mount") }

// shareNetNS makes the directory of network namespaces what the first "ip netns add" would make of it, before
// anything is pinned in it. Where that is not possible, pins work all the same.
func shareNetNS(paths pod.Paths, log *slog.Logger) {
	mount, err := pin.Share(paths.NetNS)
	if err == nil && mount != 0 {
		err = os.WriteFile(sharedMount(paths), strconv.AppendUint(nil, mount, 10), 0o600)
	}
	if err != nil {
		log.Warn("the directory of network namespaces is not a shared mount", "error", err)
	}
}

// unshareNetNS takes that mount off, if it is this instance's and the directory is empty.
func unshareNetNS(paths pod.Paths) error {
	data, err := os.ReadFile(sharedMount(paths))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	mount, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return fmt.Errorf("%s: %w", sharedMount(paths), err)
	}
	return errors.Join(pin.Unshare(paths.NetNS, mount), os.Remove(sharedMount(paths)))
}
