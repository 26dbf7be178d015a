// Package cdi gives containers the devices that vendors describe in Container Device Interface
// specifications (tags.cncf.io/container-device-interface). Such a file lists the device nodes,
// mounts, variables and hooks of a name like vendor.com/class=device.
package cdi

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	vendor "tags.cncf.io/container-device-interface/specs-go"

	"github.com/pinfold-run/pinfold/internal/regular"
)

// DefaultDirs are where vendors put their specifications. A later directory overrides an earlier
// one.
func DefaultDirs() []string { return slices.Clone(cdi.DefaultSpecDirs) }

// Annotated returns the devices that annotations (cdi.k8s.io/NAME: DEVICE,…) ask for, sorted by the
// annotations' names. A value that is not a list of devices is ErrInvalidArgument.
func Annotated(annotations map[string]string) ([]string, error) {
	keys, _, err := cdi.ParseAnnotations(annotations)
	if err != nil {
		return nil, fmt.Errorf("CDI annotations: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	slices.Sort(keys)
	var names []string
	for _, key := range keys {
		names = append(names, strings.Split(annotations[key], ",")...)
	}
	return names, nil
}

// Inject changes a container's configuration so that it has the named devices. Each call reads the
// specifications again. In a user namespace no device node can be made, so the node's are
// bind-mounted. If no specification describes a device, the error is ErrNotFound; it names the
// device and the specifications that were refused, with the reasons. The configuration is then
// unchanged.
func Inject(config *specs.Spec, dirs, names []string) error {
	if len(names) == 0 {
		return nil
	}
	names = unique(names)
	if err := readable(dirs); err != nil {
		return fmt.Errorf("CDI: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	cache, err := cdi.NewCache(cdi.WithAutoRefresh(false), cdi.WithSpecDirs(dirs...))
	if err != nil {
		return fmt.Errorf("CDI: %w", err)
	}
	for _, name := range names {
		if cache.GetDevice(name) == nil {
			return fmt.Errorf("CDI device %q: no specification in %s has it%s: %w", name, strings.Join(dirs, ", "), refused(cache, name), errdefs.ErrNotFound)
		}
	}
	if _, err := cache.InjectDevices(config, names...); err != nil {
		return fmt.Errorf("CDI devices %s: %w: %w", strings.Join(names, ", "), err, errdefs.ErrFailedPrecondition)
	}
	if inUserNS(config) {
		bind(config, hostPaths(cache, names))
	}
	return nil
}

// readable refuses specifications that are not regular files. The library would open a FIFO and
// wait for ever.
func readable(dirs []string) error {
	for _, dir := range dirs {
		entries, _ := os.ReadDir(dir) // the library says what is wrong with a directory
		for _, e := range entries {
			if ext := filepath.Ext(e.Name()); e.IsDir() || ext != ".json" && ext != ".yaml" {
				continue
			}
			if err := regular.Check(filepath.Join(dir, e.Name())); errors.Is(err, regular.ErrNotRegular) {
				return err
			}
		}
	}
	return nil
}

func unique(names []string) []string {
	var list []string
	for _, name := range names {
		if !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list
}

// maxReason limits the text about refused specifications in an error, in bytes.
const maxReason = 2000

// refused says which specifications could not be read, and why. Any of them may have the device: a
// specification that cannot be read does not tell its vendor. Errors that contain the vendor's name
// come first.
func refused(cache *cdi.Cache, name string) string {
	vendorName, _, _ := strings.Cut(name, "/")
	var own, others []string
	note := func(place, text string) {
		if !strings.Contains(text, place) {
			text = place + ": " + text
		}
		if strings.Contains(text, vendorName) {
			own = append(own, text)
		} else {
			others = append(others, text)
		}
	}
	for file, errs := range cache.GetErrors() {
		for _, err := range errs {
			note(file, err.Error())
		}
	}
	for dir, err := range cache.GetSpecDirErrors() {
		if !errors.Is(err, fs.ErrNotExist) {
			note(dir, err.Error())
		}
	}
	if len(own)+len(others) == 0 {
		return ""
	}
	slices.Sort(own)
	slices.Sort(others)
	text := strings.Join(slices.Concat(own, others), "; ")
	if len(text) > maxReason {
		text = text[:maxReason] + "…"
	}
	return "; refused: " + text
}

func inUserNS(config *specs.Spec) bool {
	return config.Linux != nil && slices.ContainsFunc(config.Linux.Namespaces, func(n specs.LinuxNamespace) bool {
		return n.Type == specs.UserNamespace
	})
}

// hostPaths maps device nodes in the container to those on the node.
func hostPaths(cache *cdi.Cache, names []string) map[string]string {
	paths := map[string]string{}
	add := func(edits vendor.ContainerEdits) {
		for _, node := range edits.DeviceNodes {
			paths[node.Path] = node.Path
			if node.HostPath != "" {
				paths[node.Path] = node.HostPath
			}
		}
	}
	for _, name := range names {
		device := cache.GetDevice(name)
		add(device.GetSpec().ContainerEdits)
		add(device.ContainerEdits)
	}
	return paths
}

// bind replaces all device nodes by bind mounts. mknod(2) of a device needs CAP_MKNOD in the
// initial user namespace.
func bind(config *specs.Spec, paths map[string]string) {
	for _, d := range config.Linux.Devices {
		source := paths[d.Path]
		if source == "" {
			source = d.Path
		}
		config.Mounts = append(config.Mounts, specs.Mount{
			Destination: d.Path, Type: "bind", Source: source, Options: []string{"bind", "rprivate", "nosuid", "noexec"},
		})
	}
	config.Linux.Devices = nil
}
