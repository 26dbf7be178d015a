package pinder

import (
	"encoding/json"
	"reflect"
	"testing"
)

// FuzzLink: whatever datagram comes from the other half, of this release or another, is read without harm
// and says the same when it is sent on.
func FuzzLink(f *testing.F) {
	f.Add(linkMsg{op: opKeep, seq: 7, pid: -1, code: 2, status: 9, errno: 11, text: "c/1\x00log,tty"}.encode())
	f.Add(linkMsg{op: opPing}.encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		m, ok := decodeLink(data)
		if ok != (len(data) >= linkHeader) {
			t.Fatalf("%d bytes are a message: %t", len(data), ok)
		}
		if again, _ := decodeLink(m.encode()); ok && !reflect.DeepEqual(again, m) {
			t.Fatalf("%+v comes back as %+v", m, again)
		}
		key, kinds, found := splitItem(m.text)
		if found && key+"\x00"+kinds != m.text {
			t.Fatalf("%q is split into %q and %q", m.text, key, kinds)
		}
		splitKinds(kinds)
	})
}

// FuzzMeta: a container's state, as any release left it in shared memory, is read back as it was or refused.
func FuzzMeta(f *testing.F) {
	f.Add([]byte(`{"id":"c","phase":"running","runtime":{"path":"/r"},"pid":7,"startTime":9,"cgroup":{},"exit":{"code":1}}`))
	f.Add([]byte(`{"id":"c","execID":"e","later":[1]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var m meta
		if json.Unmarshal(data, &m) != nil {
			return
		}
		st, err := newState()
		if err != nil {
			t.Fatal(err)
		}
		defer st.close()
		if st.saveMeta(&m) != nil {
			return // too large
		}
		if back, err := st.loadMeta(); err != nil || !reflect.DeepEqual(back, m) {
			t.Fatalf("%+v comes back as %+v, %v", m, back, err)
		}
	})
}
