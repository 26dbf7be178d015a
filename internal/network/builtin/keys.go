package builtin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// shape is what is known of a JSON value: the keys of an object, the elements of a list. The zero shape knows any value
// that is neither.
type shape struct {
	anything bool
	keys     map[string]shape // not nil: an object with these keys
	element  *shape           // not nil: a list of these
}

// keys is an object's shape.
type keys map[string]shape

var (
	// plain is a number, a string, a boolean or null.
	plain = shape{}
	// anything has no check: the code here gives it on as it is.
	anything = shape{anything: true}
)

func object(k keys) shape      { return shape{keys: k} }
func list(element shape) shape { return shape{element: &element} }

// with is these keys and more.
func (k keys) with(more keys) keys {
	all := make(keys, len(k)+len(more))
	for _, some := range []keys{k, more} {
		for name, s := range some {
			all[name] = s
		}
	}
	return all
}

// common are the keys that each plugin of the CNI project reads, or that libcni adds.
var common = keys{
	"cniVersion": plain, "name": plain, "type": plain, "prevResult": anything,
	"capabilities":              anything,
	"dns":                       object(keys{"nameservers": list(plain), "domain": plain, "search": list(plain), "options": list(plain)}),
	"cni.dev/valid-attachments": list(object(keys{"containerID": plain, "ifname": plain})),
	"cni.dev/attachments":       list(object(keys{"containerID": plain, "ifname": plain})),
}

// known returns an error that names the first key of the configuration that s does not have, or that is there twice. Keys
// are compared as they are written, although the plugins do not look at their case: so there is only one reading of each.
func known(config []byte, s shape) error {
	d := json.NewDecoder(bytes.NewReader(config))
	d.UseNumber()
	if err := s.value(d, nil); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more after the configuration")
	}
	return nil
}

// value reads one value.
func (s shape) value(d *json.Decoder, path []string) error {
	if s.anything {
		var skipped json.RawMessage
		return d.Decode(&skipped)
	}
	token, err := d.Token()
	if err != nil {
		return err
	}
	switch token {
	case json.Delim('{'):
		return s.object(d, path)
	case json.Delim('['):
		return s.list(d, path)
	}
	return nil // null stands for everything; what else is wrong is found when it is decoded
}

func (s shape) object(d *json.Decoder, path []string) error {
	if s.keys == nil {
		return fmt.Errorf("%s is an object", at(path))
	}
	seen := map[string]bool{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return err
		}
		name, _ := token.(string)
		here := slices.Concat(path, []string{name})
		inner, ok := s.keys[name]
		switch {
		case !ok:
			return fmt.Errorf("key %s is not known here", at(here))
		case seen[name]:
			return fmt.Errorf("key %s is there twice", at(here))
		}
		seen[name] = true
		if err := inner.value(d, here); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

func (s shape) list(d *json.Decoder, path []string) error {
	if s.element == nil {
		return fmt.Errorf("%s is a list", at(path))
	}
	for d.More() {
		if err := s.element.value(d, path); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

func at(path []string) string {
	if len(path) == 0 {
		return "the configuration"
	}
	return strings.Join(path, ".")
}

// decode reads a configuration whose keys are known, as the plugins do.
func decode(config []byte, into any) error {
	if err := json.Unmarshal(config, into); err != nil {
		return fmt.Errorf("the configuration cannot be read: %w", err)
	}
	return nil
}
