package keeper

import (
	"encoding/json"
	"reflect"
	"testing"
)

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
