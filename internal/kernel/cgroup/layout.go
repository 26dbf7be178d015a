package cgroup

import (
	"cmp"
	"errors"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Layout decides where the groups of pods and containers lie. CRI, NRI, CNI, statistics and the OCI runtime are all told
// what it says.
type Layout struct {
	// Systemd: systemd makes the groups, as slices and scopes. Otherwise the OCI runtime does (the driver cgroupfs).
	Systemd bool
	// Scope begins the names of the scopes that systemd makes for the pod's containers: ScopePrefix for new pods. "" is
	// that of pods of older versions.
	Scope string
}

// PodGroup is the group above those of a pod's containers.
type PodGroup struct {
	// Parent is the group as plugins and the kubelet name it: a path from the root of the hierarchies, or a slice, alone
	// or with the path before it.
	Parent string
	// Ours: the group is named after the pod and nothing else is in it, so it is removed with the pod. The kubelet
	// removes its own, systemd removes slices without scopes.
	Ours bool
	// Asked: the kubelet named it.
	Asked bool

	systemd bool
	scope   string
}

// ScopePrefix begins the names of scopes of new pods: cri-containerd-<ID>.scope. It is the name by which agents on nodes
// know a container (decision 19).
const ScopePrefix = "cri-containerd"

const (
	// ourPrefix begins the names of pods' groups that Pinfold names. There is no group above them all: it could not be
	// removed without taking it from under a runtime that is about to make a group in it.
	ourPrefix = "/pinfold-"
	// ourSlice holds the scopes of all pods for which no slice was asked.
	ourSlice = "pinfold.slice"
	// oldScopePrefix is that of pods of older versions: pinfold-<ID>.scope.
	oldScopePrefix = "pinfold"
	sliceSuffix    = ".slice"
	scopeSuffix    = ".scope"
)

// Pod is the group of the pod of that ID. asked is what the kubelet asks for, "" for nothing.
func (l Layout) Pod(asked, id string) PodGroup {
	scope := cmp.Or(l.Scope, oldScopePrefix)
	switch {
	case asked != "":
		return PodGroup{Parent: asked, Asked: true, systemd: l.Systemd, scope: scope}
	case l.Systemd:
		return PodGroup{Parent: ourSlice, systemd: true, scope: scope}
	default:
		return PodGroup{Parent: ourPrefix + id, Ours: true}
	}
}

// Container is linux.cgroupsPath of the OCI configuration of the container or other thing of that ID: <parent>/<ID> for
// cgroupfs, <slice>:<scope>:<ID> for systemd, which makes the scope <scope>-<ID>.scope. Of the path that a kubelet gives
// systemd's last element tells it all.
func (g PodGroup) Container(id string) string {
	if g.systemd {
		return path.Base(g.Parent) + ":" + g.scope + ":" + id
	}
	return path.Join("/", g.Parent, id)
}

// Path is the group's path from the root of the hierarchies.
func (g PodGroup) Path() string {
	if g.systemd {
		return slicePath(g.Parent)
	}
	return path.Join("/", g.Parent)
}

// slicePath is the path of a slice (systemd.slice(5)): "a-b.slice" is below "a.slice".
func slicePath(name string) string {
	words := strings.TrimSuffix(path.Base(name), sliceSuffix)
	p := "/"
	if words == "-" {
		return p
	}
	for i := range len(words) {
		if words[i] == '-' {
			p = path.Join(p, words[:i]+sliceSuffix)
		}
	}
	return path.Join(p, words+sliceSuffix)
}

// Plugins is where the groups of CNI plugins are made, as a path without a leading slash; "" is wherever network's
// default is. Where systemd has the hierarchy, that is below the daemon's own group, which its unit delegates
// (decision 10).
func (l Layout) Plugins(own string) string {
	if !l.Systemd || own == "" {
		return ""
	}
	return path.Join(own, "cni")
}

// Check refuses what the kubelet may not ask for. The error says what is wrong with it.
func (l Layout) Check(asked string) error {
	if asked == "" {
		return nil
	}
	if !utf8.ValidString(asked) || strings.ContainsFunc(asked, func(r rune) bool { return !unicode.IsPrint(r) }) || slices.Contains(strings.Split(asked, "/"), "..") {
		return errors.New(`contains ".." or a control character`)
	}
	if !l.Systemd {
		return nil
	}
	// systemd.slice(5): the name of a slice is its path from the root, with dashes between the
	// parts.
	base := path.Base(asked)
	name := strings.TrimSuffix(base, sliceSuffix)
	if name == base || name == "" || strings.ContainsAny(name, ": \t\n") ||
		name != "-" && (strings.HasPrefix(name, "-") || strings.HasSuffix(name, "-") || strings.Contains(name, "--")) {
		return errors.New("is not the name of a systemd slice (NAME.slice), as the systemd cgroup driver needs")
	}
	return nil
}

// UpTo cuts the path of a process's group behind its last part that is named after the container of that ID. The process
// may be in a group below the container's, as those of a systemd in a container are. It is "" if no part has the name.
func UpTo(group, id string) string {
	for ; group != "/" && group != "." && group != ""; group = path.Dir(group) {
		base := path.Base(group)
		if base == id || strings.HasSuffix(base, "-"+id) || strings.HasSuffix(base, "-"+id+scopeSuffix) {
			return group
		}
	}
	return ""
}
