package link

import (
	"reflect"
	"testing"
)

// FuzzLink: whatever datagram comes from the other half, of this release or another, is read without harm
// and says the same when it is sent on.
func FuzzLink(f *testing.F) {
	f.Add(Message{Op: OpKeep, Seq: 7, PID: -1, Code: 2, Status: 9, Errno: 11, Text: "c/1\x00log,tty"}.encode())
	f.Add(Message{Op: OpPing}.encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		m, ok := decodeLink(data)
		if ok != (len(data) >= headerSize) {
			t.Fatalf("%d bytes are a message: %t", len(data), ok)
		}
		if again, _ := decodeLink(m.encode()); ok && !reflect.DeepEqual(again, m) {
			t.Fatalf("%+v comes back as %+v", m, again)
		}
		key, kinds, found := SplitItem(m.Text)
		if found && key+"\x00"+kinds != m.Text {
			t.Fatalf("%q is split into %q and %q", m.Text, key, kinds)
		}
		splitKinds(kinds)
	})
}
