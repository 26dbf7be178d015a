package stats

import (
	"bytes"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The parsers here leave out what they do not know: a newer kernel adds lines and words. None of them returns an error.

// maxFile limits what is read of one file, in bytes. All files are much shorter.
const maxFile = 4 << 20

// read returns a file's content, false if there is none.
func read(parts ...string) ([]byte, bool) {
	l := look{buf: make([]byte, firstBuffer)}
	return l.readAt(unix.AT_FDCWD, filepath.Join(parts...))
}

func parseNumber(text string) *uint64 {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return nil
	}
	return &n
}

// keys is a flat keyed file: lines of a name and a number. A few of some sixty names are looked for, so no map is made.
type keys []byte

// find is the number behind a name.
func (k keys) find(name string) (uint64, bool) {
	for at := 0; ; {
		i := bytes.Index(k[at:], []byte(name))
		if i < 0 {
			return 0, false
		}
		begin := at + i
		at = begin + len(name)
		if begin > 0 && k[begin-1] != '\n' || at == len(k) || k[at] != ' ' {
			continue
		}
		line, _, _ := bytes.Cut(k[at:], []byte("\n"))
		n := parseNumber(string(line))
		if n == nil {
			return 0, false
		}
		return *n, true
	}
}

// value is find, and 0 if the name is missing.
func (k keys) value(name string) uint64 {
	n, _ := k.find(name)
	return n
}

// below reports whether the number is below a bound, or missing.
func (k keys) below(name string, bound uint64) bool {
	n, ok := k.find(name)
	return !ok || n < bound
}

// get is nil if the name is missing; scale is the unit of the file in that of the result.
func (k keys) get(name string, scale uint64) *uint64 {
	n, ok := k.find(name)
	if !ok {
		return nil
	}
	n *= scale
	return &n
}

// first is the value of the first name that is there, or 0.
func (k keys) first(names ...string) uint64 {
	for _, name := range names {
		if n, ok := k.find(name); ok {
			return n
		}
	}
	return 0
}

// parsePressure reads a *.pressure file (Documentation/accounting/psi.rst). nil if it holds nothing.
func parsePressure(data []byte) *Pressure {
	p := &Pressure{}
	found := false
	for line := range strings.Lines(string(data)) {
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		stall := &p.Some
		switch kind {
		case "some":
		case "full":
			stall = &p.Full
		default:
			continue
		}
		found = true
		for word := range strings.FieldsSeq(rest) {
			stall.set(word)
		}
	}
	if !found {
		return nil
	}
	return p
}

func (s *Stall) set(word string) {
	name, value, _ := strings.Cut(word, "=")
	if name == "total" {
		if n, err := strconv.ParseInt(value, 10, 64); err == nil && n >= 0 && n <= math.MaxInt64/int64(time.Microsecond) {
			s.Total = time.Duration(n) * time.Microsecond
		}
		return
	}
	f, err := strconv.ParseFloat(value, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return
	}
	switch name {
	case "avg10":
		s.Avg10 = f
	case "avg60":
		s.Avg60 = f
	case "avg300":
		s.Avg300 = f
	}
}

// parseDevice reads MAJOR:MINOR.
func parseDevice(text string) (major, minor uint64, ok bool) {
	first, second, ok := strings.Cut(text, ":")
	major, err := strconv.ParseUint(first, 10, 32)
	minor, err2 := strconv.ParseUint(second, 10, 32)
	return major, minor, ok && err == nil && err2 == nil
}

// parseIOStat reads io.stat of cgroup v2: one line for each device, "8:0 rbytes=1 wbytes=2 rios=3 …".
func parseIOStat(data []byte) []Device {
	var devices []Device
	for line := range strings.Lines(string(data)) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		d := Device{}
		var ok bool
		if d.Major, d.Minor, ok = parseDevice(words[0]); !ok {
			continue
		}
		for _, word := range words[1:] {
			name, value, _ := strings.Cut(word, "=")
			if n, err := strconv.ParseUint(value, 10, 64); err == nil {
				if field := d.field(name); field != nil {
					*field = n
				}
			}
		}
		devices = append(devices, d)
	}
	return devices
}

func (d *Device) field(name string) *uint64 {
	return map[string]*uint64{
		"rbytes": &d.ReadBytes, "wbytes": &d.WrittenBytes, "rios": &d.ReadCount, "wios": &d.WriteCount,
	}[name]
}

// parseBlkio reads two files of cgroup v1's blkio, of bytes and of operations: lines of "8:0 Read 123".
func parseBlkio(bytes, operations []byte) []Device {
	var devices []Device
	find := func(major, minor uint64) *Device {
		for i := range devices {
			if devices[i].Major == major && devices[i].Minor == minor {
				return &devices[i]
			}
		}
		devices = append(devices, Device{Major: major, Minor: minor})
		return &devices[len(devices)-1]
	}
	for suffix, data := range map[string][]byte{"bytes": bytes, "ios": operations} {
		for line := range strings.Lines(string(data)) {
			words := strings.Fields(line)
			if len(words) != 3 || words[1] != "Read" && words[1] != "Write" {
				continue
			}
			major, minor, ok := parseDevice(words[0])
			n, err := strconv.ParseUint(words[2], 10, 64)
			if ok && err == nil {
				*find(major, minor).field(strings.ToLower(words[1][:1]) + suffix) = n
			}
		}
	}
	return devices
}

// parseOpenFilesLimit reads the soft limit of open files in /proc/PID/limits; nil if there is none.
func parseOpenFilesLimit(data []byte) *uint64 {
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			if fields := strings.Fields(rest); len(fields) > 0 {
				return parseNumber(fields[0])
			}
		}
	}
	return nil
}
