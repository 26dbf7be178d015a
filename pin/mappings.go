package pin

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
)

const (
	// maxLines is the kernel's limit since Linux 4.15, user_namespaces(7).
	maxLines = 340
	// maxID is the last ID that can be mapped: 4294967295 is (uid_t)-1, which means "no change" for
	// system calls.
	maxID = 1<<32 - 2
)

// An IDMap maps Length IDs of a user namespace, starting with ContainerID, to as many IDs of its
// parent, starting with HostID.
type IDMap struct {
	ContainerID, HostID, Length uint32
}

// Mappings are the contents of a user namespace's uid_map and gid_map.
type Mappings struct {
	UIDs, GIDs []IDMap
}

// Validate checks the mappings by the kernel's rules and by two of this package: ID 0 of the
// container must be mapped, and ID 0 of the host must not be. It returns nil or a *MappingError for
// the first fault, UIDs before GIDs.
func (m Mappings) Validate() error {
	if err := validate("uid", m.UIDs); err != nil {
		return err
	}
	if err := validate("gid", m.GIDs); err != nil {
		return err
	}
	return nil
}

// Equal reports whether both have the same lines in the same order.
func (m Mappings) Equal(other Mappings) bool {
	return slices.Equal(m.UIDs, other.UIDs) && slices.Equal(m.GIDs, other.GIDs)
}

// HostUID returns the host's UID for a UID of the container, and whether it is
// mapped at all.
func (m Mappings) HostUID(container uint32) (uint32, bool) { return hostID(m.UIDs, container) }

// HostGID returns the host's GID for a GID of the container, and whether it is
// mapped at all.
func (m Mappings) HostGID(container uint32) (uint32, bool) { return hostID(m.GIDs, container) }

func hostID(lines []IDMap, container uint32) (uint32, bool) {
	for _, l := range lines {
		// The second comparison cannot overflow, unlike a sum.
		if container >= l.ContainerID && container-l.ContainerID < l.Length {
			return l.HostID + (container - l.ContainerID), true
		}
	}
	return 0, false
}

// validate returns a concrete type. Callers must check for nil before they return it as an error.
func validate(kind string, lines []IDMap) *MappingError {
	count := uint64(len(lines))
	if count == 0 {
		return &MappingError{kind, 0, "lines", 0, "at least one line is needed"}
	}
	if count > maxLines {
		return &MappingError{kind, 0, "lines", count, fmt.Sprintf("the kernel takes at most %d", maxLines)}
	}
	for i, l := range lines {
		if err := validateLine(kind, i+1, l); err != nil {
			return err
		}
	}
	if err := findOverlap(kind, "container_id", lines, func(l IDMap) uint32 { return l.ContainerID }); err != nil {
		return err
	}
	if err := findOverlap(kind, "host_id", lines, func(l IDMap) uint32 { return l.HostID }); err != nil {
		return err
	}
	if _, ok := hostID(lines, 0); !ok {
		return &MappingError{kind, 0, "container_id", 0, "is not mapped; the container would have no root"}
	}
	// The kernel accepts a map in one write that is shorter than a page.
	if size := len(mapText(lines)); size >= os.Getpagesize() {
		return &MappingError{
			kind, 0, "lines", count,
			fmt.Sprintf("are %d bytes as text; the kernel takes less than %d", size, os.Getpagesize()),
		}
	}
	return nil
}

func validateLine(kind string, number int, l IDMap) *MappingError {
	if l.Length == 0 {
		return &MappingError{kind, number, "length", 0, "must not be zero"}
	}
	for _, first := range []struct {
		field string
		id    uint32
	}{{"container_id", l.ContainerID}, {"host_id", l.HostID}} {
		if uint64(first.id) > maxID {
			return &MappingError{kind, number, first.field, uint64(first.id), "is not a usable ID; the last one is 4294967294"}
		}
		if last := uint64(first.id) + uint64(l.Length) - 1; last > maxID {
			return &MappingError{
				kind, number, "length", uint64(l.Length),
				fmt.Sprintf("from %s %d it reaches %d; the last usable ID is 4294967294", first.field, first.id, last),
			}
		}
	}
	if l.HostID == 0 {
		return &MappingError{kind, number, "host_id", 0, "the host's root must not be mapped into a container"}
	}
	return nil
}

// findOverlap compares neighbours in the order of their first IDs: if any two ranges overlap, two
// neighbours do. No range may be empty or overflow.
func findOverlap(kind, field string, lines []IDMap, first func(IDMap) uint32) *MappingError {
	order := make([]int, len(lines))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(first(lines[a]), first(lines[b])) })
	for i := 1; i < len(order); i++ {
		lower, upper := order[i-1], order[i]
		shared := first(lines[upper])
		if shared-first(lines[lower]) >= lines[lower].Length {
			continue
		}
		return &MappingError{
			kind, max(lower, upper) + 1, field, uint64(shared),
			fmt.Sprintf("is also in line %d", min(lower, upper)+1),
		}
	}
	return nil
}

// mapText formats lines for /proc/PID/uid_map and gid_map.
func mapText(lines []IDMap) []byte {
	var text []byte
	for _, l := range lines {
		text = strconv.AppendUint(text, uint64(l.ContainerID), 10)
		text = append(text, ' ')
		text = strconv.AppendUint(text, uint64(l.HostID), 10)
		text = append(text, ' ')
		text = strconv.AppendUint(text, uint64(l.Length), 10)
		text = append(text, '\n')
	}
	return text
}
