package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/config"
	"github.com/pinfold-run/pinfold/internal/image/registry"
	"github.com/pinfold-run/pinfold/internal/network"
)

// Precheck looks at what a configuration names, without an effect. Faults keep the daemon from
// starting. With warnings it starts, and some of its work fails: what is missing may come later.
func Precheck(c *config.Config) (faults, warnings []error) {
	for _, dir := range []struct{ key, path string }{
		{"root", c.Root}, {"state", c.State}, {"netns_dir", c.NetNSDir}, {"socket", filepath.Dir(c.Socket)},
	} {
		if err := usableDir(dir.path); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", dir.key, err))
		}
	}
	if path, err := findPinder(c.Pinder); err != nil {
		faults = append(faults, err)
	} else if err := runnable(path); err != nil {
		faults = append(faults, fmt.Errorf("pinder: %w", err))
	}
	runtimes, _ := configuredRuntimes(c)
	for _, name := range slices.Sorted(maps.Keys(runtimes)) {
		if err := runnable(runtimes[name].Path); err != nil {
			warnings = append(warnings, fmt.Errorf("runtimes: %s: %w", name, err))
		}
	}
	if err := network.CheckDirs(c.CNIConfDir, strings.Split(c.CNIBinDir, ":")); err != nil {
		warnings = append(warnings, err)
	}
	if err := registry.CheckConfigDirs(c.RegistryConfigDir); err != nil && c.RegistryConfigDir != config.DefaultRegistryConfigDir {
		warnings = append(warnings, fmt.Errorf("registry_config_dir: %w", err))
	}
	for _, err := range registry.CheckHosts(c.RegistryConfigDir) {
		warnings = append(warnings, fmt.Errorf("registry_config_dir: %w", err))
	}
	return faults, warnings
}

// usableDir returns an error if path can be no directory to write in. What is missing is made.
func usableDir(path string) error {
	info, err := os.Stat(path)
	for errors.Is(err, fs.ErrNotExist) && path != "/" {
		path = filepath.Dir(path)
		info, err = os.Stat(path)
	}
	switch {
	case errors.Is(err, fs.ErrPermission): // only root can tell
		return nil
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory", path)
	}
	if err := unix.Access(path, unix.W_OK); errors.Is(err, unix.EROFS) {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func runnable(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
		return fmt.Errorf("%s is not an executable file", path)
	}
	return nil
}
