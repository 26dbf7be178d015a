package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/utils"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
)

// group is the name of the attachment's cgroup.
func (a *Attachment) group() string { return "net-" + a.SandboxID }

// parts are the three inputs of libcni for an attachment, checked.
func (a *Attachment) parts() (*libcni.NetworkConfigList, *libcni.RuntimeConf, error) {
	list, err := a.list()
	if err != nil {
		return nil, nil, classed(errdefs.ErrFailedPrecondition, "sandbox %s: %v", a.SandboxID, err)
	}
	rt, err := a.runtimeConf()
	if err != nil {
		return nil, nil, classed(errdefs.ErrFailedPrecondition, "sandbox %s: %v", a.SandboxID, err)
	}
	return list, rt, nil
}

// check refuses an attachment whose names cannot be used in paths.
func (a *Attachment) check() error {
	if err := utils.ValidateContainerID(a.SandboxID); err != nil {
		return invalid(fmt.Sprintf("attachment: sandbox ID %q: %v", a.SandboxID, err))
	}
	if err := utils.ValidateInterfaceName(a.IfName); err != nil {
		return invalid(fmt.Sprintf("attachment of sandbox %s: interface %q: %v", a.SandboxID, a.IfName, err))
	}
	return nil
}

// Attach runs ADD for an attachment that the caller has stored, and sets its Result. After any error the caller must call
// Detach. The error names verb, network, sandbox and plugin. When Attach returns, no plugin process runs any more, except
// those that a plugin which succeeded has left on purpose.
//
//	DeadlineExceeded, Canceled  from ctx or AttachTimeout
//	ErrFailedPrecondition       the host's configuration has to be changed, or the attachment is not one of Plan's
//	ErrAlreadyExists            the attachment has a result
//	ErrUnavailable              all else
func (n *Network) Attach(ctx context.Context, a *Attachment) error {
	if err := a.check(); err != nil {
		return err
	}
	if len(a.Result) > 0 {
		return classed(errdefs.ErrAlreadyExists, "sandbox %s is attached to network %q already", a.SandboxID, a.Network)
	}
	if !a.Owed {
		return classed(errdefs.ErrFailedPrecondition, "sandbox %s: the attachment was not planned, or is detached", a.SandboxID)
	}
	list, rt, err := a.parts()
	if err != nil {
		return err
	}
	leave, err := n.gate.enter(ctx, a, true)
	if err != nil {
		return err
	}
	defer leave()
	result, err := n.add(ctx, a, list, rt)
	if err != nil {
		n.status.recheck()
		// ctx may have ended it.
		if serr := n.killGroup(context.WithoutCancel(ctx), a.group()); serr != nil {
			err = errors.Join(err, serr)
		}
		return err
	}
	a.Result = result
	if left := n.groups.remove(a.group()); len(left) > 0 {
		n.log.Info("a CNI plugin left processes running; they end with the sandbox",
			"pod_id", a.SandboxID, "network", a.Network, "processes", cgroup.Brief(left))
	}
	return nil
}

func (n *Network) add(ctx context.Context, a *Attachment, list *libcni.NetworkConfigList, rt *libcni.RuntimeConf) (json.RawMessage, error) {
	c := call{verb: "ADD", network: list.Name, sandbox: a.SandboxID}
	if err := requirePlugins(list, n.binDirs()); err != nil {
		return nil, fmt.Errorf("%s: %w", c, err)
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.AttachTimeout)
	defer cancel()
	r := &runner{net: n, group: a.group(), checkResult: true}
	res, err := n.cni(r, n.binDirs()).AddNetworkList(ctx, list, rt)
	if err != nil {
		return nil, c.wrap(err)
	}
	data, err := json.Marshal(res)
	if err != nil {
		return nil, c.wrap(err)
	}
	parsed, err := parseResult(data)
	if err != nil {
		return nil, c.wrap(err)
	}
	// The kubelet makes a sandbox without an address again and again, so the log says why.
	if len(parsed.addresses(a.IfName)) == 0 {
		return nil, classed(errdefs.ErrUnavailable, "%s: the plugins (%s) gave interface %s no address", c, pluginNames(list), a.IfName)
	}
	return data, nil
}

// Detach kills what an interrupted plugin has left, and then runs DEL with the configuration as it was at ADD. netns is the
// path of the pin. If there is no namespace any more at that path, or it is "", the plugins get none. When Detach returns
// nil, no DEL is owed and the cgroup is removed. It may be repeated, also if an earlier process has finished it and ended
// before it could record that. After an error, Attempts, LastError and LastTry describe it, and the caller tries again
// later.
func (n *Network) Detach(ctx context.Context, a *Attachment, netns string) error {
	if err := a.check(); err != nil {
		return err
	}
	leave, err := n.gate.enter(ctx, a, false)
	if err != nil {
		return err
	}
	defer leave()
	if err := n.detach(ctx, a, netns); err != nil {
		a.Attempts++
		a.LastError, a.LastTry = err.Error(), time.Now()
		return err
	}
	a.Owed, a.LastError = false, ""
	n.gate.forget(a.SandboxID)
	return nil
}

func (n *Network) detach(ctx context.Context, a *Attachment, netns string) error {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.DetachTimeout)
	defer cancel()
	// First the processes that were left: an ADD that still runs, perhaps in a child of a plugin, could take an address
	// after DEL has released it. A plugin whose caller was killed gets time to end by itself: if the bridge plugin's DEL
	// is killed between its link and its masquerading rules, the next one does not find the rules.
	n.groups.wait(ctx, a.group(), finishTimeout)
	if err := n.killGroup(ctx, a.group()); err != nil {
		return fmt.Errorf("detach sandbox %s: kill what is left of an earlier CNI plugin: %w", a.SandboxID, err)
	}
	if !a.Owed {
		return nil
	}
	list, rt, err := a.parts()
	if err != nil {
		return err
	}
	rt.NetNS = liveNamespace(netns)
	if rt.NetNS != "" {
		if err := a.standIn(rt.NetNS); err != nil {
			n.log.Warn("the pod's interface is gone and cannot be replaced for the plugins; they may leave firewall rules",
				"pod_id", a.SandboxID, "network", a.Network, "error", err)
		}
	}
	if err := n.del(ctx, a, list, rt); err != nil {
		return err
	}
	return n.killGroup(context.WithoutCancel(ctx), a.group())
}

func (n *Network) del(ctx context.Context, a *Attachment, list *libcni.NetworkConfigList, rt *libcni.RuntimeConf) error {
	c := call{verb: "DEL", network: list.Name, sandbox: a.SandboxID}
	// The plugins that are configured now come first: those of the ADD may be gone, or have been replaced for a reason.
	dirs := slices.Concat(n.binDirs(), a.BinDirs)
	if err := requirePlugins(list, dirs); err != nil {
		return fmt.Errorf("%s: %w", c, err)
	}
	cache := n.cacheFile(a, list.Name)
	if err := a.restoreCache(cache, list, rt); err != nil {
		return fmt.Errorf("%s: write the result of ADD for the plugins: %w", c, err)
	}
	r := &runner{net: n, group: a.group()}
	if err := n.cni(r, dirs).DelNetworkList(ctx, list, rt); err != nil {
		err = c.wrap(err)
		return errors.Join(err, n.killGroup(context.WithoutCancel(ctx), a.group()))
	}
	if err := os.Remove(cache); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: remove libcni's copy of the result: %w", c, err)
	}
	return nil
}

// liveNamespace returns path if a namespace is mounted there, otherwise "". After a reboot the pin is a plain file: with it
// a plugin would always fail.
func liveNamespace(path string) string {
	if path == "" {
		return ""
	}
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil || st.Type != unix.NSFS_MAGIC {
		return ""
	}
	return path
}

// cacheFile is the file in which libcni keeps the result of this attachment's ADD.
func (n *Network) cacheFile(a *Attachment, network string) string {
	return filepath.Join(n.cfg.CacheDir, "results", network+"-"+a.SandboxID+"-"+a.IfName)
}

// cached has those fields of libcni's files that libcni reads for DEL.
type cached struct {
	Kind        string          `json:"kind"`
	ContainerID string          `json:"containerId"`
	Config      []byte          `json:"config"`
	IfName      string          `json:"ifName"`
	NetworkName string          `json:"networkName"`
	NetNS       string          `json:"netns,omitempty"`
	Args        [][2]string     `json:"cniArgs,omitempty"`
	Caps        json.RawMessage `json:"capabilityArgs,omitempty"`
	Result      json.RawMessage `json:"result,omitempty"`
}

// restoreCache writes the result of ADD to libcni's file, which may be lost or damaged. libcni gives the result to the
// plugins as prevResult. The attachment's Result counts. If it is empty, the file stays as it is.
func (a *Attachment) restoreCache(file string, list *libcni.NetworkConfigList, rt *libcni.RuntimeConf) error {
	var have cached
	data, err := os.ReadFile(file)
	intact := err == nil && json.Unmarshal(data, &have) == nil && have.Kind == libcni.CNICacheV1 &&
		have.ContainerID == a.SandboxID && usable(have.Result)
	if intact {
		return nil
	}
	if !usable(a.Result) {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	data, err = json.Marshal(cached{
		Kind: libcni.CNICacheV1, ContainerID: a.SandboxID, Config: list.Bytes,
		IfName: a.IfName, NetworkName: list.Name, NetNS: rt.NetNS,
		Args: a.Args, Caps: a.CapabilityArgs, Result: a.Result,
	})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o600)
}

// usable reports whether libcni can convert a result between versions.
func usable(result json.RawMessage) bool {
	_, err := parseResult(result)
	return err == nil
}

// unsupported reports whether a plugin does not know the verb. Its error code is then that for a bad environment, of which
// CNI_COMMAND is a part, or one of also.
func unsupported(err error, also ...uint) bool {
	var pe *pluginError
	if !errors.As(err, &pe) {
		return false
	}
	return pe.code == types.ErrInvalidEnvironmentVariables || slices.Contains(also, pe.code)
}
