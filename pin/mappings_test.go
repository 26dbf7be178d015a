package pin

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/pinfold-run/pinfold/internal/testroot"
)

const lastUint32 = 1<<32 - 1

// badMaps lists each way in which one map can be wrong.
var badMaps = []struct {
	name  string
	lines []IDMap
	want  MappingError // without Kind and Reason
}{
	{"no lines", nil, MappingError{Field: "lines", Value: 0}},
	{"zero length", []IDMap{{0, 1000, 0}}, MappingError{Line: 1, Field: "length", Value: 0}},
	{"zero length in a later line", []IDMap{{0, 1000, 1}, {1, 2000, 0}}, MappingError{Line: 2, Field: "length", Value: 0}},
	{"container ranges overlap", []IDMap{{0, 1000, 10}, {9, 5000, 10}}, MappingError{Line: 2, Field: "container_id", Value: 9}},
	{"container ranges overlap, later line first", []IDMap{{5, 1000, 10}, {0, 5000, 6}}, MappingError{Line: 2, Field: "container_id", Value: 5}},
	{"host ranges overlap", []IDMap{{0, 1000, 10}, {10, 1009, 10}}, MappingError{Line: 2, Field: "host_id", Value: 1009}},
	{"host ranges overlap at a distance", []IDMap{{0, 1000, 10}, {10, 5000, 5}, {20, 1003, 2}}, MappingError{Line: 3, Field: "host_id", Value: 1003}},
	{"a line twice", []IDMap{{0, 1000, 10}, {0, 1000, 10}}, MappingError{Line: 2, Field: "container_id", Value: 0}},
	{"container range wraps", []IDMap{{0, 1000, 1}, {1000, 2000, 4294966297}}, MappingError{Line: 2, Field: "length", Value: 4294966297}},
	{"host range wraps", []IDMap{{0, 4294967000, 1000}}, MappingError{Line: 1, Field: "length", Value: 1000}},
	{"the ID that means no change, in the host", []IDMap{{0, lastUint32, 1}}, MappingError{Line: 1, Field: "host_id", Value: lastUint32}},
	{"the ID that means no change, in the container", []IDMap{{0, 1000, 1}, {lastUint32, 2000, 1}}, MappingError{Line: 2, Field: "container_id", Value: lastUint32}},
	{"the ID that means no change, at the end of a range", []IDMap{{0, lastUint32 - 1, 2}}, MappingError{Line: 1, Field: "length", Value: 2}},
	{"container root not mapped", []IDMap{{1, 1000, 10}}, MappingError{Field: "container_id", Value: 0}},
	{"host root mapped", []IDMap{{0, 0, 65536}}, MappingError{Line: 1, Field: "host_id", Value: 0}},
	{"host root mapped in a later line", []IDMap{{0, 1000, 1}, {1, 0, 1}}, MappingError{Line: 2, Field: "host_id", Value: 0}},
	{"more lines than the kernel takes", manyLines(341), MappingError{Field: "lines", Value: 341}},
	{"more text than the kernel takes", longLines(340), MappingError{Field: "lines", Value: 340}},
}

func manyLines(count uint32) []IDMap {
	var lines []IDMap
	for i := range count {
		lines = append(lines, IDMap{i, 1 + i, 1})
	}
	return lines
}

// longLines has 33 bytes in each line except the first: more than a page of 4 KiB. With larger
// pages the case is repeated below.
func longLines(count uint32) []IDMap {
	lines := []IDMap{{0, 1000, 1}}
	for i := uint32(1); i < count; i++ {
		lines = append(lines, IDMap{3e9 + i, 2e9 + i, 1})
	}
	return lines
}

func TestBadMappingIsRefusedAndNamesFieldAndNumber(t *testing.T) {
	good := []IDMap{{0, 100000, 65536}}
	for _, bad := range badMaps {
		for kind, m := range map[string]Mappings{"uid": {bad.lines, good}, "gid": {good, bad.lines}} {
			t.Run(kind+" "+bad.name, func(t *testing.T) {
				size := len(mapText(bad.lines))
				if bad.name == "more text than the kernel takes" && size < os.Getpagesize() {
					t.Skipf("pages here have %d bytes, and 340 lines cannot fill one", os.Getpagesize())
				}
				set, err := Create(&m, Net) // Create checks this first
				if set != nil {
					set.Close()
				}
				var got *MappingError
				if !errors.As(err, &got) || !errors.Is(err, ErrInvalid) {
					t.Fatalf("got %v, want a MappingError", err)
				}
				want := bad.want
				want.Kind, want.Reason = kind, got.Reason
				if *got != want {
					t.Errorf("got %+v, want %+v", *got, want)
				}
				for _, part := range []string{kind, want.Field, strconv.FormatUint(want.Value, 10)} {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("%q does not name %q", err, part)
					}
				}
			})
		}
	}
}

func TestUIDsAreJudgedBeforeGIDs(t *testing.T) {
	var got *MappingError
	if err := (Mappings{}).Validate(); !errors.As(err, &got) || got.Kind != "uid" {
		t.Errorf("got %v, want the uid mapping refused", err)
	}
}

func TestGoodMappingsAreAccepted(t *testing.T) {
	for name, lines := range map[string][]IDMap{
		"one line":              {{0, 100000, 65536}},
		"one ID":                {{0, 1, 1}},
		"adjacent ranges":       {{0, 1000, 10}, {10, 1010, 10}},
		"lines in any order":    {{10, 1000, 10}, {0, 2000, 10}},
		"up to the last ID":     {{0, 1, lastUint32 - 1}},
		"as many as are taken":  manyLines(340),
		"container's last ID":   {{0, 1000, 1}, {lastUint32 - 1, 2000, 1}},
		"host ranges backwards": {{0, 3000, 10}, {10, 2000, 10}, {20, 1000, 10}},
	} {
		if err := (Mappings{UIDs: lines, GIDs: lines}).Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHostIDsFollowTheLines(t *testing.T) {
	m := Mappings{
		UIDs: []IDMap{{0, 1000, 2}, {10, 5000, 3}, {lastUint32 - 1, 9000, 1}},
		GIDs: []IDMap{{0, 7000, 1}},
	}
	for _, c := range []struct {
		container, host uint32
		ok              bool
	}{
		{0, 1000, true},
		{1, 1001, true},
		{2, 0, false},
		{9, 0, false},
		{10, 5000, true},
		{12, 5002, true},
		{13, 0, false},
		{lastUint32 - 1, 9000, true},
		{lastUint32, 0, false},
	} {
		if host, ok := m.HostUID(c.container); host != c.host || ok != c.ok {
			t.Errorf("HostUID(%d) = %d, %t; want %d, %t", c.container, host, ok, c.host, c.ok)
		}
	}
	if gid, ok := m.HostGID(0); gid != 7000 || !ok {
		t.Errorf("HostGID(0) = %d, %t; want 7000, true", gid, ok)
	}
}

// TestKernelTakesWhatValidateTakes gives the kernel random maps, and maps at the limits.
func TestKernelTakesWhatValidateTakes(t *testing.T) {
	testroot.Need(t)
	maps := [][]IDMap{manyLines(340), {{0, 1, lastUint32 - 1}}, {{0, 1000, 1}, {lastUint32 - 1, 2000, 1}}}
	for count := uint32(340); ; count-- {
		if size := len(mapText(longLines(count))); size < os.Getpagesize() {
			maps = append(maps, longLines(count))
			break
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for len(maps) < 60 {
		lines := []IDMap{{0, random.Uint32(), random.Uint32() >> random.IntN(32)}}
		for range random.IntN(6) {
			lines = append(lines, IDMap{random.Uint32(), random.Uint32(), random.Uint32() >> random.IntN(32)})
		}
		if validate("uid", lines) == nil {
			maps = append(maps, lines)
		}
	}
	for _, lines := range maps {
		set, err := Create(&Mappings{UIDs: lines, GIDs: lines}, User)
		if err != nil {
			t.Fatalf("%d lines beginning with %v: %v", len(lines), lines[0], err)
		}
		set.Close()
	}
}

func FuzzMappingsValidate(f *testing.F) {
	for _, bad := range badMaps {
		f.Add(encodeLines(bad.lines))
	}
	f.Add(encodeLines(manyLines(340)))
	f.Fuzz(func(t *testing.T, data []byte) {
		lines := decodeLines(data)
		m := Mappings{UIDs: lines, GIDs: lines}
		err := m.Validate()
		if want := naivelyValid(lines); (err == nil) != want {
			t.Fatalf("Validate of %v: %v; the naive check says %t", lines, err, want)
		}
		if err == nil {
			checkTranslation(t, m)
			return
		}
		var e *MappingError
		if !errors.As(err, &e) || e.Line < 0 || e.Line > len(lines) || e.Reason == "" {
			t.Fatalf("Validate of %v: %#v", lines, err)
		}
		if !strings.Contains(err.Error(), e.Field) || !strings.Contains(err.Error(), strconv.FormatUint(e.Value, 10)) {
			t.Fatalf("%q does not name its field and number", err)
		}
	})
}

// naivelyValid gives the same answer as validate, by the definitions: it compares each pair of
// lines in 64 bits.
func naivelyValid(lines []IDMap) bool {
	size, root := 0, false
	for i, a := range lines {
		size += len(mapText([]IDMap{a}))
		aC, aH, n := uint64(a.ContainerID), uint64(a.HostID), uint64(a.Length)
		if n == 0 || aC+n > lastUint32 || aH+n > lastUint32 || aH == 0 {
			return false
		}
		root = root || aC == 0
		for _, b := range lines[i+1:] {
			bC, bH, k := uint64(b.ContainerID), uint64(b.HostID), uint64(b.Length)
			if aC < bC+k && bC < aC+n || aH < bH+k && bH < aH+n {
				return false
			}
		}
	}
	return len(lines) <= 340 && root && size < os.Getpagesize()
}

// checkTranslation checks both ends of each line of a valid mapping.
func checkTranslation(t *testing.T, m Mappings) {
	t.Helper()
	for _, l := range m.UIDs {
		for _, offset := range []uint32{0, l.Length - 1} {
			host, ok := m.HostUID(l.ContainerID + offset)
			if !ok || host != l.HostID+offset {
				t.Fatalf("HostUID(%d) = %d, %t with %v", l.ContainerID+offset, host, ok, m.UIDs)
			}
			if host == 0 || host == lastUint32 {
				t.Fatalf("host ID %d is mapped by %v", host, m.UIDs)
			}
		}
	}
}

func encodeLines(lines []IDMap) []byte {
	var data []byte
	for _, l := range lines {
		for _, n := range []uint32{l.ContainerID, l.HostID, l.Length} {
			data = binary.LittleEndian.AppendUint32(data, n)
		}
	}
	return data
}

func decodeLines(data []byte) []IDMap {
	var lines []IDMap
	for ; len(data) >= 12; data = data[12:] {
		lines = append(lines, IDMap{
			binary.LittleEndian.Uint32(data),
			binary.LittleEndian.Uint32(data[4:]),
			binary.LittleEndian.Uint32(data[8:]),
		})
	}
	return lines
}
