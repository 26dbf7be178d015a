package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/regular"
)

// podIDs is how many ids a pod gets, as in Kubernetes.
const podIDs = 1 << 16

// defaultRange is used if /etc/subuid or /etc/subgid has no range for us. It is far from users' ids
// and has room for 1,024 pods.
const defaultRange = "1048576:67108864"

// idRange is a run of host ids.
type idRange struct{ first, count uint64 }

func (r idRange) overlaps(o idRange) bool {
	return r.first < o.first+o.count && o.first < r.first+r.count
}

func parseRange(text string) (idRange, error) {
	first, count, ok := strings.Cut(text, ":")
	f, err1 := strconv.ParseUint(first, 10, 32)
	c, err2 := strconv.ParseUint(count, 10, 32)
	if !ok || err1 != nil || err2 != nil || f == 0 || c == 0 || f+c > 1<<32-1 {
		return idRange{}, fmt.Errorf("%q is not a range of ids FIRST:COUNT", text)
	}
	return idRange{f, c}, nil
}

// maxSubordinate is the largest file that is read, in bytes.
const maxSubordinate = 4 << 20

// subordinate reads subuid(5) or subgid(5). It returns the ranges of pinfold, or those of root if
// pinfold has none.
func subordinate(file string) ([]idRange, error) {
	data, err := regular.Read(file, maxSubordinate)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	of := map[string][]idRange{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		owner, text, ok := strings.Cut(strings.TrimSpace(lines.Text()), ":")
		if !ok || strings.HasPrefix(owner, "#") {
			continue
		}
		r, err := parseRange(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		of[owner] = append(of[owner], r)
	}
	if own := of["pinfold"]; len(own) > 0 {
		return own, lines.Err()
	}
	return of["root"], lines.Err()
}

// chooseRange finds ids that no pod uses. Users and groups get the same numbers.
func chooseRange(otherwise string, taken []idRange) (*runtimeapi.UserNamespace, error) {
	users, err := subordinate("/etc/subuid")
	if err != nil {
		return nil, err
	}
	groups, err := subordinate("/etc/subgid")
	if err != nil {
		return nil, err
	}
	if len(users) == 0 || len(groups) == 0 {
		r, err := parseRange(otherwise)
		if err != nil {
			return nil, err
		}
		users, groups = []idRange{r}, []idRange{r}
	}
	for _, u := range users {
		for first := u.first; first+podIDs <= u.first+u.count; first += podIDs {
			slot := idRange{first, podIDs}
			if within(slot, groups) && !overlapsAny(slot, taken) {
				maps := []*runtimeapi.IDMapping{{HostId: uint32(first), ContainerId: 0, Length: podIDs}}
				return &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: maps, Gids: maps}, nil
			}
		}
	}
	return nil, fmt.Errorf("not enough free subordinate ids for another pod, which needs %d", podIDs)
}

func within(slot idRange, ranges []idRange) bool {
	for _, r := range ranges {
		if slot.first >= r.first && slot.first+slot.count <= r.first+r.count {
			return true
		}
	}
	return false
}

func overlapsAny(slot idRange, ranges []idRange) bool {
	for _, r := range ranges {
		if slot.overlaps(r) {
			return true
		}
	}
	return false
}

// takenRanges are the host ids of all pods on the node.
func (n *node) takenRanges(ctx context.Context) ([]idRange, error) {
	list, err := n.runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return nil, err
	}
	var taken []idRange
	for _, pod := range list.Items {
		status, err := n.runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod.Id})
		if err != nil {
			continue // removed meanwhile
		}
		userns := status.GetStatus().GetLinux().GetNamespaces().GetOptions().GetUsernsOptions()
		for _, m := range append(userns.GetUids(), userns.GetGids()...) {
			taken = append(taken, idRange{uint64(m.HostId), uint64(m.Length)})
		}
	}
	return taken, nil
}
