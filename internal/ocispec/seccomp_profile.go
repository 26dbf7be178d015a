package ocispec

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// MaxSeccompProfile limits the file of a seccomp profile, in bytes. Docker's default has some 20
// KB.
const MaxSeccompProfile = 1 << 20

// CheckSeccompProfile refuses a profile that is not correct to the letter. It may have the form of
// an OCI configuration or Docker's, which also has conditions (archMap, includes, excludes). If
// unknown parts were ignored, the container would run with fewer restrictions than requested.
// Error: ErrInvalidArgument, with the field.
func CheckSeccompProfile(data []byte) error {
	if len(data) > MaxSeccompProfile {
		return invalid("size", "%d bytes; a profile may have %d", len(data), MaxSeccompProfile)
	}
	if !utf8.Valid(data) {
		return invalid("text", "it is not UTF-8")
	}
	if err := checkShape(data); err != nil {
		return err
	}
	var p seccomp.Seccomp
	// The error numbers' names of the containers project.
	var names struct {
		DefaultErrno string
		Syscalls     []struct{ Errno string }
	}
	if err := errors.Join(json.Unmarshal(data, &p), json.Unmarshal(data, &names)); err != nil {
		return invalid("text", "%v", err)
	}
	if err := checkErrnoName("defaultErrno", names.DefaultErrno, p.DefaultErrnoRet); err != nil {
		return err
	}
	filter := p.LinuxSeccomp
	for i, call := range p.Syscalls {
		field := indexed("syscalls", i)
		if err := checkErrnoName(field+".errno", names.Syscalls[i].Errno, call.ErrnoRet); err != nil {
			return err
		}
		if call.Name != "" { //nolint:staticcheck // Old profiles have only this field.
			call.Names = append(slices.Clone(call.Names), call.Name) //nolint:staticcheck // as above
		}
		if err := errors.Join(checkConditions(field+".includes", call.Includes), checkConditions(field+".excludes", call.Excludes)); err != nil {
			return err
		}
		filter.Syscalls = append(filter.Syscalls, call.LinuxSyscall)
	}
	for _, a := range p.ArchMap {
		filter.Architectures = append(append(filter.Architectures, a.Arch), a.SubArches...)
	}
	if err := CheckSeccomp(&filter); err != nil {
		return err
	}
	return checkEffect(data)
}

// checkEffect refuses a profile whose conditions remove every restricting rule, for the
// architecture or the kernel of the node, whatever capabilities a container has.
func checkEffect(data []byte) error {
	var nothing error
	for _, caps := range [][]string{nil, knownCapabilities} {
		process := &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}
		filter, err := seccomp.LoadProfile(string(data), &specs.Spec{Process: process})
		if err != nil {
			return invalid("text", "%v", err)
		}
		if nothing = CheckSeccomp(filter); nothing == nil {
			return nil
		}
	}
	return nothing
}

// loadSeccomp returns the filter of a profile for a container. Its conditions may depend on the
// container's capabilities.
func loadSeccomp(data []byte, s *specs.Spec) (*specs.LinuxSeccomp, error) {
	if err := CheckSeccompProfile(data); err != nil {
		return nil, err
	}
	filter, err := seccomp.LoadProfile(string(data), s)
	if err == nil && filter == nil {
		err = errors.New("it filters nothing")
	}
	return filter, err
}

// shape is the expected form of a JSON value: an object of these fields, a list of these items, or
// else a text or a number. encoding/json alone accepts keys in any case, unknown keys, duplicate
// keys, and null for everything.
type shape struct {
	fields   map[string]shape
	required []string
	items    *shape
	number   bool
	// orNull allows null, which older programs write for a missing list or condition.
	orNull bool
}

func listOf(item shape) shape { return shape{items: &item, orNull: true} }

var profileShape = func() shape {
	text, number := shape{}, shape{number: true}
	texts := listOf(text)
	conditions := shape{orNull: true, fields: map[string]shape{"caps": texts, "arches": texts, "minKernel": text}}
	arg := shape{
		fields:   map[string]shape{"index": number, "value": number, "valueTwo": number, "op": text},
		required: []string{"index", "op"}, // some programs leave out a value of 0
	}
	rule := shape{required: []string{"action"}, fields: map[string]shape{
		"name": text, "names": texts, "action": text, "errnoRet": number, "errno": text, "args": listOf(arg),
		"comment": text, "includes": conditions, "excludes": conditions,
	}}
	arch := shape{required: []string{"architecture"}, fields: map[string]shape{"architecture": text, "subArchitectures": texts}}
	return shape{required: []string{"defaultAction"}, fields: map[string]shape{
		"defaultAction": text, "defaultErrnoRet": number, "defaultErrno": text, "architectures": texts, "archMap": listOf(arch),
		"flags": texts, "listenerPath": text, "listenerMetadata": text, "syscalls": listOf(rule), "comment": text,
	}}
}()

func checkShape(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := profileShape.read(d, ""); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return invalid("text", "there is text after the profile")
	}
	return nil
}

func (s shape) read(d *json.Decoder, at string) error {
	token, err := d.Token()
	if err != nil {
		return invalid(orText(at), "it is not JSON: %v", err)
	}
	_, isText := token.(string)
	_, isNumber := token.(json.Number)
	switch {
	case token == nil && s.orNull:
		return nil
	case s.fields != nil && token == json.Delim('{'):
		return s.readFields(d, at)
	case s.items != nil && token == json.Delim('['):
		for i := 0; d.More(); i++ {
			if err := s.items.read(d, indexed(at, i)); err != nil {
				return err
			}
		}
		return closing(d, at)
	case s.fields == nil && s.items == nil && (s.number && isNumber || !s.number && isText):
		return nil
	}
	return invalid(orText(at), "%.80v is not %s", token, s.name())
}

func (s shape) readFields(d *json.Decoder, at string) error {
	missing := map[string]bool{}
	for _, key := range s.required {
		missing[key] = true
	}
	seen := map[string]bool{}
	for d.More() {
		token, err := d.Token()
		key, ok := token.(string)
		if err != nil || !ok {
			return invalid(orText(at), "it is not JSON: %v", err)
		}
		field := key
		if at != "" {
			field = at + "." + key
		}
		of, known := s.fields[key]
		switch {
		case !known:
			return invalid(orText(at), "the key %.80q is unknown; known are %v", key, slices.Sorted(maps.Keys(s.fields)))
		case seen[key]:
			return invalid(field, "it is given twice")
		}
		seen[key] = true
		delete(missing, key)
		if err := of.read(d, field); err != nil {
			return err
		}
	}
	if err := closing(d, at); err != nil {
		return err
	}
	for _, key := range s.required {
		if missing[key] {
			return invalid(orText(at), "the key %q is missing", key)
		}
	}
	return nil
}

// closing reads the end of an object or a list.
func closing(d *json.Decoder, at string) error {
	if _, err := d.Token(); err != nil {
		return invalid(orText(at), "it is not JSON: %v", err)
	}
	return nil
}

func (s shape) name() string {
	switch {
	case s.fields != nil:
		return "an object"
	case s.items != nil:
		return "a list"
	case s.number:
		return "a number"
	default:
		return "a text"
	}
}

// orText names the whole text if there is no place in it.
func orText(at string) string {
	if at == "" {
		return "text"
	}
	return at
}
