package pod

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/pinfold-run/pinfold/internal/record"
)

func recordsIn(t *testing.T, dir, boot string) *Records {
	t.Helper()
	store, err := record.Open(dir, boot)
	if err != nil {
		t.Fatal(err)
	}
	return NewRecords(store, NewEvents(NewBook()), slog.New(slog.DiscardHandler))
}

// broken makes the next writes of a sandbox's records fail: its directory is a file.
func broken(t *testing.T, dir string) {
	t.Helper()
	pods := filepath.Join(dir, podsDir)
	if err := os.RemoveAll(pods); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(pods, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAChangeIsOnTheDiskAndInMemoryOrNowhere(t *testing.T) {
	dir := t.TempDir()
	r := recordsIn(t, dir, "boot")
	box := boxNamed("s", "web", Creating, 1)
	durable, err := r.Intend(box)
	if err != nil || durable() != nil {
		t.Fatal(err)
	}
	ready := func(rec *SandboxRecord) { rec.State = Ready }
	if err := r.ChangeSandbox(box, ready); err != nil || box.Record().State != Ready {
		t.Errorf("%s, %v", box.Record().State, err)
	}
	if read := r.ReadSandbox("s"); read.Err != nil || read.Record.State != Ready || !read.SameBoot || read.FromIntent {
		t.Errorf("on the disk: %+v", read)
	}
	broken(t, dir)
	stopped := func(rec *SandboxRecord) { rec.State = Stopped }
	if err := r.ChangeSandbox(box, stopped); err == nil || box.Record().State != Ready {
		t.Errorf("the disk is broken: %s, %v", box.Record().State, err)
	}
	// What takes something away goes on.
	r.NoteSandbox(box, stopped)
	if box.Record().State != Stopped {
		t.Errorf("noted on a broken disk: %s", box.Record().State)
	}
}

func TestANoteOfAContainerSaysWhetherItWasWritten(t *testing.T) {
	dir := t.TempDir()
	r := recordsIn(t, dir, "boot")
	c := containerNamed("c", "s", "app", Running, 1)
	if err := os.MkdirAll(filepath.Join(dir, podsDir, "s", containersDir), 0o700); err != nil {
		t.Fatal(err)
	}
	if !r.NoteContainer(c, func(rec *ContainerRecord) { rec.Exit.Code = 1 }) || c.Record().Exit.Code != 1 {
		t.Errorf("on a good disk: %+v", c.Record().Exit)
	}
	if read := r.ReadContainer("s", "c"); read.Err != nil || read.Record.Exit.Code != 1 {
		t.Errorf("on the disk: %+v", read)
	}
	broken(t, dir)
	if r.NoteContainer(c, func(rec *ContainerRecord) { rec.Exit.Code = 2 }) || c.Record().Exit.Code != 2 {
		t.Errorf("on a broken disk: %+v", c.Record().Exit)
	}
}

func TestRecordsAreReadForWhatTheyAre(t *testing.T) {
	dir := t.TempDir()
	r := recordsIn(t, dir, "boot")
	for _, id := range []string{"a", "b"} {
		box := boxNamed(id, id, Creating, 1)
		durable, err := r.Intend(box)
		if err != nil || durable() != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(dir, podsDir, id, containersDir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.PutContainer(&ContainerRecord{ID: "c", Sandbox: "a"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"c.exit", ".tmp-1"} { // beside the records
		if err := os.WriteFile(filepath.Join(dir, podsDir, "a", containersDir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if ids, err := r.Sandboxes(); err != nil || !slices.Equal(ids, []string{"a", "b"}) {
		t.Errorf("sandboxes %v, %v", ids, err)
	}
	if ids, err := r.Containers("a"); err != nil || !slices.Equal(ids, []string{"c"}) {
		t.Errorf("containers %v, %v", ids, err)
	}
	if read := recordsIn(t, dir, "another boot").ReadSandbox("a"); read.Err != nil || read.SameBoot {
		t.Errorf("after a reboot: %+v", read)
	}
	// A record that lies at the place of another is not that one's.
	if err := os.Rename(filepath.Join(dir, podsDir, "b", "pod.json"), filepath.Join(dir, podsDir, "a", "pod.json")); err != nil {
		t.Fatal(err)
	}
	if read := r.ReadSandbox("a"); read.Err == nil {
		t.Errorf("a record that names another: %+v", read)
	}
	where, err := r.QuarantineSandbox("a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(where); err != nil {
		t.Errorf("it is not at %s: %v", where, err)
	}
	if read := r.ReadSandbox("a"); read.Err == nil {
		t.Error("a record in quarantine is still read")
	}
}

func TestRemovedRecordsAreNotRead(t *testing.T) {
	dir := t.TempDir()
	r := recordsIn(t, dir, "boot")
	box, c := boxNamed("s", "web", Ready, 1), containerNamed("c", "s", "app", Created, 1)
	if err := os.MkdirAll(filepath.Join(dir, podsDir, "s", containersDir), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a removal can be repeated
		if r.PutSandbox(box.Record()) != nil || r.PutContainer(c.Record()) != nil {
			t.Fatal("not written")
		}
		for range 2 {
			if err := r.RemoveContainer(c); err != nil {
				t.Error(err)
			}
			if err := r.RemoveSandbox("s"); err != nil {
				t.Error(err)
			}
		}
		if r.ReadSandbox("s").Err == nil || r.ReadContainer("s", "c").Err == nil {
			t.Error("a removed record is read")
		}
	}
	r.SandboxRemoved(box)
	r.ContainerRemoved(c)
	if !box.Removed || !c.Removed {
		t.Error("operations that wait for the order do not see the removal")
	}
}
