package stats

import (
	"bytes"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The parsers here leave out what they do not know: a newer kernel adds lines and words. None of them returns an error.

// maxFile limits what is read of one file, in bytes. All files are much shorter.
const maxFile = 4 << 20

// read returns a file's content, false if there is none. The error is ENODEV if the group was removed meanwhile, and
// EOPNOTSUPP if a resource is switched off. In both cases there is no content.
func read(parts ...string) ([]byte, bool) {
	f, err := os.Open(filepath.Join(parts...))
	if err != nil {
		return nil, false
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile))
	return data, err == nil
}

// number reads a file with one number. It is nil if the file is missing, and for "max" or a negative number: no limit.
func number(dir, name string) *uint64 {
	if dir == "" {
		return nil
	}
	data, ok := read(dir, name)
	if !ok {
		return nil
	}
	return parseNumber(string(bytes.TrimSpace(data)))
}

func parseNumber(text string) *uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return nil
	}
	return &n
}

// limit is number, and nil also for what cgroup v1 shows for "no limit": the greatest multiple of the page size, which
// depends on the architecture.
func limit(dir, name string) *uint64 {
	const unlimited = 1 << 62
	n := number(dir, name)
	if n == nil || *n >= unlimited {
		return nil
	}
	return n
}

// keys is a flat keyed file: lines of a name and a number.
type keys map[string]uint64

func parseKeys(data []byte) keys {
	k := keys{}
	for line := range strings.Lines(string(data)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			k[name] = n
		}
	}
	return k
}

// get is nil if the key is missing; scale is the unit of the file in that of the result.
func (k keys) get(name string, scale uint64) *uint64 {
	n, ok := k[name]
	if !ok {
		return nil
	}
	n *= scale
	return &n
}

// first is the value of the first key that is there, or 0.
func (k keys) first(names ...string) uint64 {
	for _, name := range names {
		if n, ok := k[name]; ok {
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
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		stall := &p.Some
		switch words[0] {
		case "some":
		case "full":
			stall = &p.Full
		default:
			continue
		}
		found = true
		for _, word := range words[1:] {
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
