package pod

import (
	"encoding/json"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestImagesOfAContainerAreNamedOnce(t *testing.T) {
	for _, c := range []struct {
		rec  ContainerRecord
		want []string
	}{
		{ContainerRecord{}, nil}, // none is known yet
		{ContainerRecord{FromImage: FromImage{Image: "b"}}, []string{"b"}},
		{ContainerRecord{FromImage: FromImage{Image: "b"}, Mounts: []VolumeMount{{Image: "c"}, {Source: "/x"}, {Image: "b"}, {Image: "a"}}}, []string{"a", "b", "c"}},
	} {
		if got := c.rec.Images(); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, want %v", c.rec, got, c.want)
		}
	}
}

func TestAContainerFromARecordGoesOnWhereItWas(t *testing.T) {
	ended := func(c *Container) bool {
		select {
		case <-c.Ended:
			return true
		default:
			return false
		}
	}
	for _, state := range []State{Creating, Created, Running, Exited, Removing} {
		if c := NewContainer(&ContainerRecord{State: state}); ended(c) != (state == Exited) {
			t.Errorf("one that is %s has ended: %t", state, ended(c))
		}
	}
	at := time.Now().Add(time.Hour).Round(0)
	c := NewContainer(&ContainerRecord{State: Running, Times: Times{Signalled: time.Now(), KillAt: at}})
	if c.Stop.ClaimSignal() {
		t.Error("the stop signal is sent again after a restart")
	}
	if news, killAt, _ := c.Stop.Shorten(at.Add(time.Hour)); news || !killAt.Equal(at) {
		t.Errorf("a longer grace period counts after a restart: %v", killAt)
	}
}

func TestTheShortestGracePeriodCounts(t *testing.T) {
	var s Stopping
	now := time.Now()
	news, killAt, sooner := s.Shorten(now.Add(time.Minute))
	if !news || !killAt.Equal(now.Add(time.Minute)) {
		t.Fatalf("the first: %t, %v", news, killAt)
	}
	if news, killAt, _ := s.Shorten(now.Add(time.Hour)); news || !killAt.Equal(now.Add(time.Minute)) {
		t.Errorf("a longer one: %t, %v", news, killAt)
	}
	select {
	case <-sooner:
		t.Error("who waits was woken by a longer one")
	default:
	}
	if news, killAt, _ := s.Shorten(now.Add(time.Second)); !news || !killAt.Equal(now.Add(time.Second)) {
		t.Errorf("a shorter one: %t, %v", news, killAt)
	}
	select {
	case <-sooner:
	default:
		t.Error("who waits was not woken by a shorter one")
	}
}

func TestTheStopSignalIsSentOnceUnlessItCouldNotBe(t *testing.T) {
	var s Stopping
	if !s.ClaimSignal() || s.ClaimSignal() {
		t.Error("not exactly one caller sends it")
	}
	s.ReturnSignal()
	if !s.ClaimSignal() || s.ClaimSignal() {
		t.Error("after a failure not exactly one caller sends it")
	}
}

func TestABundleIsShownWithTheSourcesThatWereAskedFor(t *testing.T) {
	p := Paths{State: t.TempDir()}
	if got := p.ShownBundle("c"); got != nil {
		t.Errorf("there is none: %s", got)
	}
	if err := os.MkdirAll(p.Bundle("c"), 0o700); err != nil {
		t.Fatal(err)
	}
	config := &specs.Spec{Process: &specs.Process{}, Mounts: []specs.Mount{{Destination: "/data", Source: "/mnt/c/bind"}, {Destination: "/proc", Source: "proc"}}}
	if err := p.WriteBundleSpec("c", config); err != nil {
		t.Fatal(err)
	}
	sources := func() []string {
		var shown specs.Spec
		if err := json.Unmarshal(p.ShownBundle("c"), &shown); err != nil {
			t.Fatal(err)
		}
		return []string{shown.Mounts[0].Source, shown.Mounts[1].Source}
	}
	if got := sources(); !slices.Equal(got, []string{"/mnt/c/bind", "proc"}) {
		t.Errorf("nothing stands in for anything: %v", got)
	}
	if err := p.WriteBoundSources("c", map[string]string{"/mnt/c/bind": "/srv/data"}); err != nil {
		t.Fatal(err)
	}
	if got := sources(); !slices.Equal(got, []string{"/srv/data", "proc"}) {
		t.Errorf("a locked mount stands in for a volume: %v", got)
	}
	if kept, err := p.BundleSpec("c"); err != nil || kept.Mounts[0].Source != "/mnt/c/bind" {
		t.Errorf("what the runtime reads: %v, %v", kept, err)
	}
	info, err := os.Stat(p.BundleConfig("c"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("it may hold secrets, and has mode %v, %v", info.Mode(), err)
	}
}

func TestADamagedBundleIsAnError(t *testing.T) {
	p := Paths{State: t.TempDir()}
	if err := os.MkdirAll(p.Bundle("c"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := p.BundleSpec("c"); !os.IsNotExist(err) {
		t.Errorf("there is none: %v", err)
	}
	for content, is := range map[string]func(error) bool{
		"{":  func(err error) bool { return err != nil },
		"{}": errdefs.IsFailedPrecondition, // it has no process
	} {
		if err := os.WriteFile(p.BundleConfig("c"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := p.BundleSpec("c"); !is(err) {
			t.Errorf("%s: %v", content, err)
		}
	}
}
