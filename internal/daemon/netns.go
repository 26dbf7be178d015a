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

// sharedMounts is the file that lists the mounts that this instance made on directories of network
// namespaces. Each line has the ID of a mount and its directory. An earlier run may have used
// another directory.
func sharedMounts(paths pod.Paths) string { return filepath.Join(paths.State, "netns.mount") }

// shareNetNS makes the directory of network namespaces a shared mount, as the first "ip netns add"
// does. It is called before anything is pinned there. If it fails, pins work all the same.
func shareNetNS(paths pod.Paths, log *slog.Logger) {
	mount, err := pin.Share(paths.NetNS)
	if err == nil && mount != 0 {
		err = note(sharedMounts(paths), fmt.Sprintf("%d %s\n", mount, paths.NetNS))
	}
	if err != nil {
		log.Warn("the directory of network namespaces is not a shared mount", "error", err)
	}
}

func note(path, line string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	return errors.Join(err, f.Close())
}

// unshareNetNS unmounts those mounts that are still this instance's and are empty.
func unshareNetNS(paths pod.Paths) error {
	data, err := os.ReadFile(sharedMounts(paths))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var failed []error
	for line := range strings.Lines(string(data)) {
		id, dir, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if mount, err := strconv.ParseUint(id, 10, 64); err == nil {
			failed = append(failed, pin.Unshare(dir, mount))
		}
	}
	return errors.Join(append(failed, os.Remove(sharedMounts(paths)))...)
}
