package network

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

// GC tells the plugins which attachments are valid. They release what belongs to none of them. It runs once for each
// distinct configuration: the one that is configured now, and those of the attachments. A plugin is told all valid
// attachments to the network of that name. Attachments that this process has begun and not detached are valid, too.
// Plugins and configurations older than version 1.1 of the specification are skipped, and those with disableGC.
//
// valid must have every attachment that the caller knows, also those with debts: a plugin may release what is not named.
// For the same reason two runtimes must not share a network's name and store. If a plugin fails, the others run all the
// same, and the errors are joined.
func (n *Network) GC(ctx context.Context, valid []Attachment) error {
	live, leave, err := n.gate.enterGC(ctx)
	if err != nil {
		return err
	}
	defer leave()
	group := "net-gc-" + n.instance()
	if err := n.killGroup(ctx, group); err != nil {
		return fmt.Errorf("network GC: kill what is left of an earlier one: %w", err)
	}
	lists, errs := n.distinct(valid)
	for _, list := range lists {
		if err := n.gcList(ctx, group, list, validFor(list.Name, valid, live)); err != nil {
			errs = append(errs, err)
		}
	}
	errs = append(errs, n.killGroup(context.WithoutCancel(ctx), group))
	return errors.Join(errs...)
}

// distinct lists the configurations to call GC with.
func (n *Network) distinct(valid []Attachment) ([]*libcni.NetworkConfigList, []error) {
	var lists []*libcni.NetworkConfigList
	var errs []error
	seen := make(map[string]bool)
	add := func(list *libcni.NetworkConfigList) {
		if key := string(list.Bytes); !seen[key] && since11(list) && !list.DisableGC {
			seen[key] = true
			lists = append(lists, list)
		}
	}
	// Without a configuration there is one list less. That is no error.
	if conf, err := load(n.confDir()); err == nil {
		add(conf.list)
	}
	for i := range valid {
		list, err := valid[i].list()
		if err != nil {
			errs = append(errs, fmt.Errorf("network GC: sandbox %s: %w", valid[i].SandboxID, err))
			continue
		}
		add(list)
	}
	return lists, errs
}

func validFor(network string, valid []Attachment, live []liveAttachment) []types.GCAttachment {
	out := []types.GCAttachment{} // an empty list, never null: nothing is valid
	seen := make(map[types.GCAttachment]bool)
	add := func(name string, a types.GCAttachment) {
		if name == network && !seen[a] {
			seen[a] = true
			out = append(out, a)
		}
	}
	for i := range valid {
		a := &valid[i]
		add(a.Network, types.GCAttachment{ContainerID: a.SandboxID, IfName: a.IfName})
	}
	for _, l := range live {
		add(l.network, l.gc)
	}
	return out
}

func (n *Network) gcList(ctx context.Context, group string, list *libcni.NetworkConfigList, valid []types.GCAttachment) error {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.DetachTimeout)
	defer cancel()
	// libcni would also send a DEL for each of its cached results that is not valid. The caller has recorded those
	// debts and does that itself. So libcni gets a cache directory that does not exist.
	noCache := filepath.Join(n.cfg.CacheDir, "none")
	var errs []error
	for _, p := range list.Plugins {
		c := call{verb: "GC", network: list.Name}
		r := &runner{net: n, group: group}
		cni := libcni.NewCNIConfigWithCacheDir(n.binDirs(), noCache, r)
		err := cni.GCNetworkList(ctx, only(list, p), &libcni.GCArgs{ValidAttachments: valid})
		if err != nil && !unsupported(err, types.ErrIncompatibleCNIVersion) {
			errs = append(errs, c.wrap(err))
		}
	}
	return errors.Join(errs...)
}
