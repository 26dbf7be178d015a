package recovery

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/network"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/pod/lifecycle"
	"github.com/pinfold-run/pinfold/internal/record"
	"github.com/pinfold-run/pinfold/internal/steps"
)

// today is the network configuration of now.
type today struct {
	Network
	name, list string
}

func (n today) Current() (string, json.RawMessage, bool) {
	return n.name, json.RawMessage(n.list), n.list != ""
}

type damaged struct{ Images }

func (damaged) Quarantined() []image.Quarantined {
	return []image.Quarantined{{File: "i.json", Reason: "torn"}}
}

// checking is the check of a node in a directory of the test, whose pods and containers are only records.
func checking(t *testing.T, current today) *checker {
	t.Helper()
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	store, err := record.Open(filepath.Join(dir, "root"), "boot")
	if err != nil {
		t.Fatal(err)
	}
	book := pod.NewBook()
	base := lifecycle.Base{
		Places: &pod.Places{Paths: pod.Paths{Root: filepath.Join(dir, "root"), State: filepath.Join(dir, "state"), NetNS: filepath.Join(dir, "netns")}, Log: log},
		Book:   book, Records: pod.NewRecords(store, pod.NewEvents(book), log), Engine: steps.NewEngine(), Log: log,
	}
	return &checker{Recovery: New(base, Parts{Network: current, Images: damaged{}}, nil, nil, NewDebts(log)), sight: sight{passed: map[string]bool{}}}
}

// findings are what was found, without the actions.
func (c *checker) findings() []string {
	var found []string
	for _, d := range c.found {
		found = append(found, d.Finding)
	}
	slices.Sort(found)
	return found
}

func mustWrite(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestASandboxThatIsNotReadyIsCheckedByItsState(t *testing.T) {
	owed := &network.Attachment{Network: "mesh", Owed: true, Attempts: 2, LastError: "busy"}
	const owes = "a CNI DEL of network mesh is owed (tried 2 times; last: busy)"
	for _, c := range []struct {
		name   string
		rec    pod.SandboxRecord
		pinned []string // below the state directory or that of networks
		want   []string
	}{
		{"unfinished", pod.SandboxRecord{State: pod.Creating}, nil, []string{"it is creating, and no operation is in progress"}},
		{"not removed", pod.SandboxRecord{State: pod.Removing}, nil, []string{"it is removing, and no operation is in progress"}},
		{"removed but for a debt", pod.SandboxRecord{State: pod.Removing, Network: owed}, nil, []string{owes}},
		{"stopped", pod.SandboxRecord{State: pod.Stopped}, nil, nil},
		{
			"stopped, with pins",
			pod.SandboxRecord{State: pod.Stopped},
			[]string{"state/ns/s/ipc", "netns/pinfold-s"},
			[]string{"it is stopped, but its ipc namespace is still pinned at DIR/state/ns/s/ipc", "it is stopped, but its net namespace is still pinned at DIR/netns/pinfold-s"},
		},
		{"stopped, and the network's pin is kept for a debt", pod.SandboxRecord{State: pod.Stopped, Network: owed}, []string{"netns/pinfold-s"}, []string{owes}},
		{
			"stopped by itself",
			pod.SandboxRecord{State: pod.Stopped, Reason: "the node was rebooted"},
			nil,
			[]string{"it is not ready: the node was rebooted"},
		},
		{
			"lost, and alive",
			pod.SandboxRecord{State: pod.Stopped, Lost: true, Reason: "its record was torn"},
			[]string{"state/ns/s/ipc"},
			[]string{"it is not ready: its record was torn"},
		},
	} {
		check := checking(t, today{})
		dir := filepath.Dir(check.Places.Root)
		for _, path := range c.pinned {
			mustWrite(t, filepath.Join(dir, path), "")
		}
		c.rec.ID, c.rec.Means = "s", pod.Means{RuntimeRoot: "/r", NetNS: check.Places.NetNSPin("s")}
		check.sandbox(&c.rec)
		got := check.findings()
		for i := range got {
			got[i] = strings.ReplaceAll(got[i], dir, "DIR")
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s:\ngot  %q\nwant %q", c.name, got, c.want)
		}
	}
}

func TestAContainerIsComparedWithItsProcessAndPinder(t *testing.T) {
	self, err := proc.Find(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	gone := proc.Process{PID: 1 << 22, Start: 1}
	for _, c := range []struct {
		name    string
		state   pod.State
		process proc.Process
		pinder  *wire.Container
		stale   bool
		bundle  bool
		want    []string
	}{
		{"runs", pod.Running, self, &wire.Container{}, false, true, nil},
		{
			"its process is gone", pod.Running, gone, &wire.Container{}, false, true,
			[]string{"it is recorded as running, but its process (pid 4194304) is gone"},
		},
		{"has ended, and pinder says so", pod.Running, gone, &wire.Container{Exit: &wire.Exit{}}, false, true, nil},
		{"pinder has lost it", pod.Running, self, nil, false, true, []string{"pinder does not know it"}},
		{"pinder has lost it before it was started", pod.Created, gone, nil, true, true, nil},
		{
			"adopted", pod.Running, self, &wire.Container{LogLost: true}, false, true,
			[]string{"its output is not logged any more: pinfoldd and pinder had been killed at once"},
		},
		{"unfinished", pod.Creating, gone, nil, false, true, []string{"it is creating, and no operation is in progress"}},
		{"not removed", pod.Removing, gone, nil, false, true, []string{"it is removing, and no operation is in progress"}},
		{"has ended", pod.Exited, gone, nil, false, false, nil},
		{"has ended, and left something", pod.Exited, gone, nil, false, true, []string{"it has ended, but its bundle is still there"}},
	} {
		check := checking(t, today{})
		check.known = map[string]wire.Container{}
		if c.pinder != nil {
			check.known["c"] = *c.pinder
		}
		if c.bundle {
			mustWrite(t, check.Places.BundleConfig("c"), "{}")
		}
		ctr := pod.NewContainer(&pod.ContainerRecord{ID: "c", State: c.state, Process: c.process})
		ctr.Stale.Store(c.stale)
		if c.state == pod.Exited { // what has just ended is passed over
			check.debts.Add(ctr)
			check.debts.owed["c"].tries = 1
		}
		check.container(ctr)
		if got := check.findings(); !slices.Equal(got, c.want) {
			t.Errorf("%s:\ngot  %q\nwant %q", c.name, got, c.want)
		}
	}
}

func TestAStoredAddressBelongsToAPodOrIsReported(t *testing.T) {
	data := t.TempDir()
	list := `{"plugins": [{"ipam": {"type": "host-local", "dataDir": "` + data + `"}}, {"ipam": {"type": "dhcp"}}, {}]}`
	check := checking(t, today{name: "mesh", list: list})
	check.Book.AddSandbox(pod.NewSandbox(&pod.SandboxRecord{ID: "known", State: pod.Ready}))
	for file, holder := range map[string]string{
		"10.0.0.2": "known\neth0\n", "10.0.0.3": "other\neth0\n", "10.0.0.4": "other", "last_reserved_ip.0": "10.0.0.4", "lock": "",
	} {
		mustWrite(t, filepath.Join(data, "mesh", file), holder)
	}
	// Nothing is known of another network of the node.
	mustWrite(t, filepath.Join(data, "elsewhere", "10.1.0.1"), "other")
	check.stores()
	var objects []string
	for _, d := range check.found {
		objects = append(objects, d.Object)
		if d.Action != notOurs || !strings.Contains(d.Finding, "held by other") {
			t.Errorf("%+v", d)
		}
	}
	if slices.Sort(objects); !slices.Equal(objects, []string{"address 10.0.0.3", "address 10.0.0.4"}) {
		t.Errorf("reported are %q", objects)
	}
}

func TestStoresAreThoseOfTheConfigurationsThatPodsWereMadeWithAndOfTodays(t *testing.T) {
	check := checking(t, today{name: "new", list: `{"plugins": [{"ipam": {"type": "host-local"}}]}`})
	check.Book.AddSandbox(pod.NewSandbox(&pod.SandboxRecord{ID: "a", Network: &network.Attachment{
		Network: "old", ConfList: []byte(`{"plugins": [{"ipam": {"type": "host-local", "dataDir": "/data"}}]}`),
	}}))
	check.Book.AddSandbox(pod.NewSandbox(&pod.SandboxRecord{ID: "b", Network: &network.Attachment{Network: "torn", ConfList: []byte(`{`)}}))
	check.Book.AddSandbox(pod.NewSandbox(&pod.SandboxRecord{ID: "c"}))
	got := check.storeDirs()
	if len(got) != 2 || !got["/data/old"] || !got["/var/lib/cni/networks/new"] {
		t.Errorf("got %v", got)
	}
}

func TestRecordsInQuarantineAreLeftForPeople(t *testing.T) {
	check := checking(t, today{})
	check.quarantined()
	mustWrite(t, filepath.Join(check.Places.Root, "quarantine", "pods-s-pod.json"), "{")
	check.quarantined()
	var objects []string
	for _, d := range check.found {
		objects = append(objects, d.Object)
		if d.Action != forPeople {
			t.Errorf("%+v", d)
		}
	}
	if !slices.Equal(objects, []string{"image record i.json", "record pods-s-pod.json", "image record i.json"}) || len(check.failed) != 0 {
		t.Errorf("%q, %v", objects, check.failed)
	}
}
