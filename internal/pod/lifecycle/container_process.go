package lifecycle

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
)

// containerProcess is the step "runtime create": the OCI runtime makes the container's process and holds it before its
// program.
type containerProcess struct {
	places   *pod.Places
	records  *pod.Records
	runtimes runtimes
	target   pidTarget
	pinder   processes
}

// Do writes the configuration, makes the process, and puts it into the record that the next step writes. A container whose
// process is made anew has its configuration already.
func (s containerProcess) Do(ctx context.Context, box *pod.Sandbox, c *pod.Container) error {
	rec := c.Record()
	runtime, err := s.runtimes.find(ctx, box.Record())
	if err != nil {
		return err
	}
	config := c.Draft
	if config == nil {
		if config, err = s.places.BundleSpec(c.ID); err != nil {
			return err
		}
	}
	request := s.request(box, c)
	request.Runtime.Binary = runtime.Path
	request.Owner = box.Record().HostUser(config.Process.User)
	if rec.LogPath != "" {
		if err := makeLogDir(request.LogDir, rec.Config.GetLogPath()); err != nil {
			return err
		}
	}
	if request.Runtime.Rlimits, err = s.runtimes.takeRlimits(box.Record(), config); err != nil {
		return err
	}
	if err := s.places.WriteBundleSpec(c.ID, config); err != nil {
		return err
	}
	created, err := s.pinder.Create(ctx, request)
	if err != nil {
		return commandMissing(err)
	}
	// The runtime had only the PID of the target.
	if _, err := s.target.find(rec); err != nil {
		return err
	}
	s.records.AmendContainer(c, func(r *pod.ContainerRecord) { r.Process = created.Process })
	return nil
}

// Undo kills the container's processes and removes it from the runtime and from pinder. It reads the IDs and the means of the
// pod. The runtime's state is in the state directory; without that there is no container.
func (s containerProcess) Undo(ctx context.Context, box *pod.Sandbox, c *pod.Container) error {
	if c.Reduced {
		return nil
	}
	return s.pinder.Delete(ctx, s.places.Deletion(box.Record(), c.ID))
}

// request is what pinder needs to create a container, or to adopt its process.
func (s containerProcess) request(box *pod.Sandbox, c *pod.Container) wire.Create {
	rec := c.Record()
	m := s.places.Means(box.Record())
	return wire.Create{
		ID:       c.ID,
		Bundle:   s.places.Bundle(c.ID),
		Runtime:  m.Call(),
		TTY:      rec.Config.GetTty(),
		Stdin:    rec.Config.GetStdin(),
		LogDir:   box.Record().Config.GetLogDirectory(),
		LogPath:  rec.LogPath,
		ExitFile: s.places.Exit(box.ID, c.ID),
	}
}

// makeLogDir makes the directories of a container's log if the kubelet has not. Below the pod's own directory a container may
// have made links (it is a volume of log agents), so no link is followed out of it.
func makeLogDir(dir, log string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("log directory: %w", err)
	}
	below := filepath.Dir(log)
	if below == "." {
		return nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("log directory: %w", err)
	}
	defer root.Close()
	if err := root.MkdirAll(below, 0o755); err != nil {
		return fmt.Errorf("log directory %s: %w", dir, err)
	}
	return nil
}

// commandMissing gives the class ErrNotFound to the error of a runtime that the image does not have the container's command.
// Runtimes have no code for it, only texts: runc "executable file not found in $PATH" and "stat /x: no such file or
// directory", crun "executable file `x` not found".
func commandMissing(err error) error {
	text := err.Error()
	if strings.Contains(text, "executable file") && strings.Contains(text, "not found") ||
		strings.Contains(text, "exec: ") && strings.Contains(text, "no such file or directory") {
		return fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	}
	return err
}
