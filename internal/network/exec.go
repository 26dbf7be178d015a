package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/pinfold-run/pinfold/internal/network/builtin"
)

const (
	// maxOutput limits what is kept of a plugin's standard output, in bytes.
	maxOutput = 4 << 20
	// shownOutput limits how much of it an error text has.
	shownOutput = 1 << 10
	// pipeGrace is how long output is read after a plugin has ended: a child may still have it open.
	pipeGrace = time.Second
	// busyRetries and busyPause: while a plugin binary is being replaced, it cannot be executed (ETXTBSY).
	busyRetries = 10
	busyPause   = 200 * time.Millisecond
)

// runner runs the plugin processes of one call in one group. It implements libcni's Exec. One goroutine uses it.
type runner struct {
	net   *Network
	group string
	// checkResult: what the plugins print must be a result (ADD).
	checkResult bool
	last        outcome
}

var _ invoke.Exec = (*runner)(nil)

// outcome is the output of the last plugin process.
type outcome struct {
	plugin         string
	stdout, stderr capped
}

// output quotes what the plugin printed, for an error text.
func (o *outcome) output() string {
	text := ""
	for _, s := range []struct {
		name string
		buf  *capped
	}{{"output", &o.stdout}, {"error output", &o.stderr}} {
		data := bytes.TrimSpace(s.buf.data)
		if len(data) == 0 {
			continue
		}
		if len(data) > shownOutput {
			text += fmt.Sprintf("; %s (first %d bytes): %q", s.name, shownOutput, data[:shownOutput])
			continue
		}
		text += fmt.Sprintf("; %s: %q", s.name, data)
	}
	return text
}

// FindInPath is part of libcni's Exec.
func (r *runner) FindInPath(plugin string, paths []string) (string, error) {
	return findPlugin(plugin, paths)
}

// Decode is part of libcni's Exec.
func (r *runner) Decode(data []byte) (version.PluginInfo, error) {
	var d version.PluginDecoder
	return d.Decode(data)
}

// ExecPlugin is part of libcni's Exec: it runs one plugin, or does its work without it, and returns its standard output.
// When ctx ends, the plugin's whole group is killed. Every error is a *pluginError.
func (r *runner) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	c := request(stdin, environ)
	switch chosen := r.net.ways.choose(ctx, r, path, &c); chosen.way {
	case passed:
		return chosen.answer, nil
	case within:
		out, err := r.watched(ctx, path, environ, func(ctx context.Context) ([]byte, error) { return r.within(ctx, path, c) })
		if !errors.Is(err, builtin.ErrStart) {
			return out, err
		}
		r.net.log.Debug("a CNI plugin is started after all", "path", path, "reason", err)
	}
	return r.start(ctx, path, stdin, environ)
}

// start runs the plugin's program.
func (r *runner) start(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	for try := 0; ; try++ {
		out, err := r.watched(ctx, path, environ, func(ctx context.Context) ([]byte, error) {
			return r.once(ctx, program{path: path, stdin: stdin, environ: environ, isPlugin: true})
		})
		switch {
		case err == nil:
			return out, nil
		case errors.Is(err, syscall.ETXTBSY) && try < busyRetries:
			select {
			case <-time.After(busyPause):
			case <-ctx.Done():
			}
		case errors.Is(err, syscall.ENOSYS) && r.net.groups.usable():
			r.net.groups.off.Store(true)
			r.net.log.Warn("the kernel refuses to start a process in a cgroup; CNI plugins run in process groups", "error", err)
		default:
			return nil, err
		}
	}
}

// program is a process to start.
type program struct {
	path          string
	args, environ []string
	stdin         []byte
	isPlugin      bool // it says what is wrong as CNI plugins do
}

func (r *runner) once(ctx context.Context, p program) ([]byte, error) {
	plugin := filepath.Base(p.path)
	r.last = outcome{plugin: plugin}
	if ctx.Err() != nil {
		return nil, &pluginError{plugin: plugin, text: "was not started: " + ctx.Err().Error(), class: ctx.Err()}
	}
	started := time.Now()
	cmd := exec.CommandContext(ctx, p.path, p.args...)
	cmd.Env = p.environ
	cmd.Stdin = bytes.NewReader(p.stdin)
	r.last.stdout.limit, r.last.stderr.limit = maxOutput, maxOutput
	cmd.Stdout, cmd.Stderr = &r.last.stdout, &r.last.stderr
	cmd.WaitDelay = pipeGrace
	// With a process group of its own it does not get a terminal's ^C for the daemon.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dir, err := r.net.groups.open(r.group)
	if err != nil {
		return nil, &pluginError{plugin: plugin, text: "cannot be started: " + err.Error(), class: errdefs.ErrUnavailable}
	}
	if dir != nil {
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	var killed bool
	var ended []string
	cmd.Cancel = func() error { // Wait has not reaped it yet, so the pid is still its own
		killed = true
		ended, _ = r.net.groups.signal(r.group)
		return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	err = cmd.Run()
	if killed {
		return nil, interrupted(ctx, plugin, started, ended)
	}
	if cmd.ProcessState == nil {
		return nil, startError(plugin, err)
	}
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return nil, r.last.failure(cmd.ProcessState.String())
	}
	if r.last.stdout.over {
		return nil, &pluginError{plugin: plugin, text: fmt.Sprintf("printed more than %d bytes%s", maxOutput, r.last.output()), class: errdefs.ErrUnavailable}
	}
	if r.checkResult && p.isPlugin {
		if err := checkResult(r.last.stdout.data); err != nil {
			return nil, &pluginError{
				plugin: plugin,
				text:   fmt.Sprintf("ended with exit status 0 but its answer cannot be used: %v%s", err, r.last.output()),
				class:  errdefs.ErrUnavailable,
			}
		}
	}
	return r.last.stdout.data, nil
}

// checkResult refuses a result of ADD that libcni could not read. It does so before libcni, because the error text quotes
// the output, which is known only here. See also parseResult.
func checkResult(data []byte) error {
	res, err := parseResult(data)
	if err != nil {
		return err
	}
	if res.CNIVersion == "" {
		return nil // libcni sets the configuration's version
	}
	_, err = create.Create(res.CNIVersion, data)
	return err
}

// failure is the error of a plugin that did not end with status 0.
func (o *outcome) failure(status string) error {
	var said *types.Error
	if json.Unmarshal(o.stdout.data, &said) == nil && said != nil && (said.Msg != "" || said.Code != 0) {
		return saidError(o.plugin, said)
	}
	text := fmt.Sprintf("ended with %s", status)
	if out := o.output(); out != "" {
		text += out
	} else {
		text += " and printed nothing"
	}
	return &pluginError{plugin: o.plugin, text: text, class: errdefs.ErrUnavailable}
}

// startError is the error of a plugin that could not be started.
func startError(plugin string, err error) error {
	class := error(errdefs.ErrUnavailable)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOEXEC) {
		class = errdefs.ErrFailedPrecondition
	}
	return &pluginError{plugin: plugin, text: "cannot be started: " + err.Error(), class: errors.Join(class, err)}
}

// capped keeps the first limit bytes that are written to it, and discards the rest. So a plugin that prints without end
// neither blocks nor fills the memory.
type capped struct {
	data  []byte
	limit int
	over  bool
}

func (c *capped) Write(p []byte) (int, error) {
	room := c.limit - len(c.data)
	if room < len(p) {
		c.over = true
		c.data = append(c.data, p[:max(room, 0)]...)
		return len(p), nil
	}
	c.data = append(c.data, p...)
	return len(p), nil
}
