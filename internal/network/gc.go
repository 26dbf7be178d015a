package network

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

// GC tells the plugins which attachments are valid, so that they free what
// belongs to none. It runs once for each distinct configuration among today's
// and those of the attachments; a plugin is told of all valid attachments to
// the network of that name. Attachments begun by this process and not detached
// count as valid too. Plugins and configurations older than version 1.1 of the
// specification are passed over, as are those with disableGC.
//
// valid must hold every attachment that the caller knows, debts included: what
// is not named may be freed. For the same reason two runtimes must not share a
// network's name and store. Errors of several plugins are joined; none keeps
// the others from running.
func (n *Network) GC(ctx context.Context, valid []Attachment) error {
	live, leave, err := n.gate.enterGC(ctx)
	if err != nil {
		return err
	}
	defer leave()
	group := "net-gc-" + n.instance()
	if err := n.sweep(ctx, group); err != nil {
		return fmt.Errorf("network GC: end what is left of an earlier one: %w", err)
	}
	lists, errs := n.distinct(valid)
	for _, list := range lists {
		if err := n.gcList(ctx, group, list, validFor(list.Name, valid, live)); err != nil {
			errs = append(errs, err)
		}
	}
	errs = append(errs, n.sweep(context.WithoutCancel(ctx), group))
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
	// No configuration today is nothing wrong: it only means one list less.
	if conf, err := load(n.cfg.ConfDir); err == nil {
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
	// libcni would also send a DEL for each of its cached results that is not
	// valid. Those debts are in the caller's books, so it is shown a cache
	// directory that never exists.
	noCache := filepath.Join(n.cfg.CacheDir, "none")
	var errs []error
	for _, p := range list.Plugins {
		c := call{verb: "GC", network: list.Name}
		r := &runner{net: n, group: group}
		cni := libcni.NewCNIConfigWithCacheDir(n.cfg.BinDirs, noCache, r)
		err := cni.GCNetworkList(ctx, only(list, p), &libcni.GCArgs{ValidAttachments: valid})
		if err != nil && !unsupported(err, types.ErrIncompatibleCNIVersion) {
			errs = append(errs, c.wrap(err))
		}
	}
	return errors.Join(errs...)
}
