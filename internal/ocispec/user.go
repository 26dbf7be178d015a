package ocispec

import (
	"bytes"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/pin"
)

const (
	securityField = "linux.security_context"
	// maxID is the last usable uid or gid. The next number is (uid_t)-1, which means "no change"
	// for chown(2) and others.
	maxID = 1<<32 - 2
	// maxGroups is NGROUPS_MAX, setgroups(2).
	maxGroups = 1 << 16
)

// EffectiveUser returns the uid, gid and supplementary groups of the container's first process.
// ContainerStatus shows them, too. The user is the security context's, else the image's, else root,
// resolved in the image's passwd and group files. The groups always contain the gid, so that a
// process that changes its primary group with setgid(2) does not escape a file's group permissions
// (CVE-2022-36109). They are sorted.
//
// ErrInvalidArgument if a named user or group does not exist in the image, or the pod's user
// namespace does not map an ID.
func EffectiveUser(c Container) (specs.User, error) {
	who, err := requestedUser(c)
	if err != nil {
		return specs.User{}, err
	}
	id, err := who.resolve(c)
	if err != nil {
		return specs.User{}, err
	}
	sc := c.securityContext()
	groups := []uint32{id.gid}
	if sc.GetSupplementalGroupsPolicy() == runtimeapi.SupplementalGroupsPolicy_Merge && id.name != "" {
		groups = append(groups, groupsOf(c.Group, id.name)...)
	}
	for _, gid := range sc.GetSupplementalGroups() {
		groups = append(groups, uint32(gid)) // ValidateContainer has checked the range
	}
	slices.Sort(groups)
	if groups = slices.Compact(groups); len(groups) > maxGroups {
		return specs.User{}, invalid(who.field, "%q is in %d groups; the kernel supports %d", id.name, len(groups), maxGroups)
	}
	user := specs.User{UID: id.uid, GID: id.gid, AdditionalGids: groups}
	if !c.inUserNS() {
		return user, nil
	}
	return user, checkUserMapped(who.field, user, c.Sandbox.Config.Mappings())
}

// identity is a resolved user. name is "" if passwd does not have it.
type identity struct {
	name     string
	uid, gid uint32
}

// userRef is a requested user that was not looked up yet. An empty user means root, an empty group
// means the user's own.
type userRef struct {
	// field is where the name comes from, for errors.
	field       string
	user, group string
	// numeric allows a number that is not in passwd.
	numeric bool
}

func requestedUser(c Container) (userRef, error) {
	sc := c.securityContext()
	ref := userRef{field: securityField + ".run_as_user", numeric: true}
	switch {
	case sc.GetRunAsUser() != nil:
		ref.user = strconv.FormatInt(sc.GetRunAsUser().GetValue(), 10)
	case sc.GetRunAsUsername() != "":
		ref = userRef{field: securityField + ".run_as_username", user: sc.GetRunAsUsername()}
	default:
		ref.field = "image user"
		ref.user, ref.group, _ = strings.Cut(c.Image.User, ":")
	}
	if sc.GetRunAsGroup() != nil {
		ref.group = strconv.FormatInt(sc.GetRunAsGroup().GetValue(), 10)
	}
	var f faults
	checkUserFields(&f, sc)
	return ref, f.err()
}

func (r userRef) resolve(c Container) (identity, error) {
	id, err := r.lookUp(c)
	if err != nil || r.group == "" {
		return id, err
	}
	if gid, ok := parseID(r.group); ok {
		id.gid = gid
		return id, nil
	}
	for g := range groupEntries(c.Group) {
		if g.name == r.group {
			id.gid = g.gid
			return id, nil
		}
	}
	if c.GroupErr != nil {
		return id, invalid(r.field, "group %q: %v", r.group, c.GroupErr)
	}
	return id, invalid(r.field, "group %q is not in the image's /etc/group", r.group)
}

func (r userRef) lookUp(c Container) (identity, error) {
	name := r.user
	if name == "" {
		name = "0"
	}
	number, isNumber := parseID(name)
	isNumber = isNumber && (r.numeric || r.user == "")
	for entry := range passwdEntries(c.Passwd) {
		if isNumber && entry.uid == number || !isNumber && entry.name == name {
			return entry, nil
		}
	}
	if isNumber {
		return identity{uid: number}, nil
	}
	if r.numeric && isDigits(name) {
		return identity{}, invalid(r.field, "%s is not a uid: the last one is %d", name, uint32(maxID))
	}
	if c.PasswdErr != nil {
		return identity{}, invalid(r.field, "user %q: %v", name, c.PasswdErr)
	}
	return identity{}, invalid(r.field, "user %q is not in the image's /etc/passwd", name)
}

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

func parseID(s string) (uint32, bool) {
	if !isDigits(s) {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n <= maxID
}

// passwdEntries reads passwd(5). It skips a line whose IDs are not numbers: lenient parsers read
// them as 0, which is root.
func passwdEntries(data []byte) iter.Seq[identity] {
	return func(yield func(identity) bool) {
		for fields := range databaseLines(data) {
			if len(fields) < 4 {
				continue
			}
			uid, ok := parseID(fields[2])
			gid, ok2 := parseID(fields[3])
			if ok && ok2 && !yield(identity{name: fields[0], uid: uid, gid: gid}) {
				return
			}
		}
	}
}

// groupEntry is a line of group(5). Commas separate its members.
type groupEntry struct {
	name    string
	gid     uint32
	members string
}

func (g groupEntry) has(user string) bool {
	for member := range strings.SplitSeq(g.members, ",") {
		if member == user && user != "" {
			return true
		}
	}
	return false
}

// groupEntries reads group(5), as strictly as passwdEntries.
func groupEntries(data []byte) iter.Seq[groupEntry] {
	return func(yield func(groupEntry) bool) {
		for fields := range databaseLines(data) {
			if len(fields) < 3 {
				continue
			}
			gid, ok := parseID(fields[2])
			if !ok {
				continue
			}
			g := groupEntry{name: fields[0], gid: gid}
			if len(fields) > 3 {
				g.members = fields[3]
			}
			if !yield(g) {
				return
			}
		}
	}
}

// databaseLines are the lines that have a name, with the first fields of each. It holds one line at
// a time, because an image may make the file large.
func databaseLines(data []byte) iter.Seq[[]string] {
	return func(yield func([]string) bool) {
		for raw := range bytes.Lines(data) {
			const fields = 5 // more than are used, so that the last used field does not contain the rest of the line
			line := strings.SplitN(string(bytes.TrimSpace(raw)), ":", fields)
			if line[0] == "" || line[0][0] == '#' {
				continue
			}
			if !yield(line) {
				return
			}
		}
	}
}

func groupsOf(group []byte, user string) []uint32 {
	var gids []uint32
	for g := range groupEntries(group) {
		if g.has(user) {
			gids = append(gids, g.gid)
		}
	}
	return gids
}

func checkUserMapped(field string, user specs.User, maps *pin.Mappings) error {
	var f faults
	f.add(checkMapped(field, "uid", user.UID, maps.UIDs))
	for _, gid := range user.AdditionalGids {
		f.add(checkMapped(field, "gid", gid, maps.GIDs))
	}
	return f.err()
}

// checkMapped refuses an ID that the pod's user namespace does not map.
func checkMapped(field, kind string, id uint32, lines []pin.IDMap) error {
	ranges := make([]string, 0, len(lines))
	for _, line := range lines {
		if id >= line.ContainerID && id-line.ContainerID < line.Length {
			return nil
		}
		last := uint64(line.ContainerID) + uint64(line.Length) - 1
		ranges = append(ranges, fmt.Sprintf("%d-%d", line.ContainerID, last))
	}
	return invalid(field, "%s %d is outside of the pod's user namespace, which has %s", kind, id, strings.Join(ranges, ", "))
}

// checkUserFields checks what can be checked without the image.
func checkUserFields(f *faults, sc *runtimeapi.LinuxContainerSecurityContext) {
	uid, gid, name := sc.GetRunAsUser(), sc.GetRunAsGroup(), sc.GetRunAsUsername()
	if uid != nil && name != "" {
		f.invalid(securityField+".run_as_username", "%q and run_as_user %d are given; only one is allowed", name, uid.GetValue())
	}
	if gid != nil && uid == nil && name == "" {
		f.invalid(securityField+".run_as_group", "%d is given without run_as_user or run_as_username", gid.GetValue())
	}
	checkIDRange(f, securityField+".run_as_user", uid)
	checkIDRange(f, securityField+".run_as_group", gid)
	for _, group := range sc.GetSupplementalGroups() {
		checkIDRange(f, securityField+".supplemental_groups", &runtimeapi.Int64Value{Value: group})
	}
	if policy := sc.GetSupplementalGroupsPolicy(); runtimeapi.SupplementalGroupsPolicy_name[int32(policy)] == "" {
		f.invalid(securityField+".supplemental_groups_policy", "%d is not a policy", policy)
	}
}

func checkIDRange(f *faults, field string, id *runtimeapi.Int64Value) {
	if id != nil && (id.GetValue() < 0 || id.GetValue() > maxID) {
		f.invalid(field, "%d is not in 0-%d", id.GetValue(), uint32(maxID))
	}
}
