package lifecycle

import (
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/apparmor"
	"github.com/pinfold-run/pinfold/internal/cdi"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/selinux"
)

// confine completes a container's configuration with what is in files of the node: the devices that vendors describe. It
// also checks that the AppArmor profile is loaded and that SELinux knows the labels.
func (s containerBundle) confine(rec *pod.ContainerRecord, config *specs.Spec) error {
	if err := checkAppArmor(apparmor.Loaded, config.Process.ApparmorProfile); err != nil {
		return err
	}
	if s.runtimes.host.SELinux {
		if err := errors.Join(selinux.Check(config.Process.SelinuxLabel), selinux.Check(config.Linux.MountLabel)); err != nil {
			return err
		}
	}
	names, err := cdiDevices(rec.Config.ContainerConfig)
	if err != nil {
		return err
	}
	return cdi.Inject(config, cdi.DefaultDirs(), names)
}

// cdiDevices are those of the field and those of the older form, annotations.
func cdiDevices(config *runtimeapi.ContainerConfig) ([]string, error) {
	var names []string
	for _, d := range config.GetCDIDevices() {
		names = append(names, d.GetName())
	}
	annotated, err := cdi.Annotated(config.GetAnnotations())
	return append(names, annotated...), err
}

// checkAppArmor refuses a profile that is not loaded. The error of the OCI runtime would be harder to understand.
func checkAppArmor(loaded func(string) (bool, error), profile string) error {
	if profile == "" {
		return nil
	}
	ok, err := loaded(profile)
	if err != nil {
		return fmt.Errorf("AppArmor profile %q: %w", profile, err)
	}
	if !ok {
		return fmt.Errorf("AppArmor profile %q is not loaded on this node: %w", profile, errdefs.ErrFailedPrecondition)
	}
	return nil
}
