package pod

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"testing"
)

// Older and newer versions of Pinfold read these records: a key never changes.
func TestTheKeysOfTheRecords(t *testing.T) {
	sandbox := `{"id":"p","state":"ready","created":"2026-01-02T03:04:05Z","config":{"hostname":"h"},"handler":"runc",` +
		`"network":{"sandboxID":"p","netns":"/n","ifName":"eth0","network":"net","confFile":"f","confList":{},"owed":true},` +
		`"reason":"r","lost":true,"timeline":[{"step":"record","start":"2026-01-02T03:04:05Z","took":5}],"init":{"pid":7,"startTime":9},` +
		`"means":{"runtime":"/r","runtimeRoot":"/rr","systemdCgroup":true,"scope":"cri-containerd","netns":"/n"},"pins":{"ipc":3},"selinuxLevel":"s0"}`
	container := `{"id":"c","sandbox":"p","state":"exited","config":{"logPath":"l"},"image":"sha256:i","imageNames":{"name":"n","ref":"f"},` +
		`"stopSignal":15,"volumes":["/v"],"user":{"uid":1,"gid":2,"groups":[3]},"logPath":"/l","process":{"pid":7,"startTime":9},` +
		`"times":{"created":"2026-01-02T03:04:05Z","started":"2026-01-02T03:04:06Z","finished":"2026-01-02T03:04:07Z",` +
		`"signalled":"2026-01-02T03:04:08Z","killAt":"2026-01-02T03:04:09Z"},"exit":{"code":1,"reason":"Error","message":"m"},` +
		`"timeline":[{"step":"record","start":"2026-01-02T03:04:05Z","took":5}],"mounts":[{"source":"/s","image":"sha256:j"}]}`
	same := func(text string, rec any) {
		t.Helper()
		if err := json.Unmarshal([]byte(text), rec); err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(rec)
		if err != nil {
			t.Fatal(err)
		}
		if plain(t, got) != plain(t, []byte(text)) {
			t.Errorf("read and written:\n%s\nwant\n%s", got, text)
		}
	}
	same(sandbox, &SandboxRecord{})
	same(container, &ContainerRecord{})
	newer := `{"id":"c","config":{"logPath":"l","fieldOfANewerPinfold":1},"anotherOne":{}}`
	var rec ContainerRecord
	if err := json.Unmarshal([]byte(newer), &rec); err != nil || rec.Config.GetLogPath() != "l" {
		t.Errorf("a record of a newer version: %v, %v", rec.Config, err)
	}
}

// plain is JSON with its keys in order and without spaces.
func plain(t *testing.T, data []byte) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestWhatTheKubeletSaidOfTheNodeIsKept(t *testing.T) {
	r := recordsIn(t, t.TempDir(), "boot")
	if _, err := r.Node(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before it said anything: %v", err)
	}
	want := netip.MustParsePrefix("10.1.0.0/24")
	if err := r.PutNode(&NodeRecord{PodCIDRs: []netip.Prefix{want}}); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Node(); err != nil || len(got.PodCIDRs) != 1 || got.PodCIDRs[0] != want {
		t.Errorf("got %v: %v", got, err)
	}
}
