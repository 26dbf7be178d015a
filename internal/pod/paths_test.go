package pod

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/pinfold-run/pinfold/pin"
)

// Operators, their scripts and other versions of Pinfold know these names: a change of one is a change of the product.
func TestWhereThingsAre(t *testing.T) {
	p := Paths{Root: "/var/lib/pinfold", State: "/run/pinfold", NetNS: "/run/netns"}
	for got, want := range map[string]string{
		p.NetNSPin("p"):       "/run/netns/pinfold-p",
		p.Pin("p", pin.Net):   "/run/netns/pinfold-p",
		p.Pin("p", pin.User):  "/run/pinfold/ns/p/user",
		p.Pin("p", pin.IPC):   "/run/pinfold/ns/p/ipc",
		p.Pin("p", pin.UTS):   "/run/pinfold/ns/p/uts",
		p.Pin("p", pin.PID):   "/run/pinfold/ns/p/pid",
		p.Bundle("c"):         "/run/pinfold/bundles/c",
		p.BundleConfig("c"):   "/run/pinfold/bundles/c/config.json",
		p.RuntimeRoot("kata"): "/run/pinfold/runtime/kata",
		p.Mounts():            "/run/pinfold/mnt",
		p.InitDir():           "/var/lib/pinfold/init",
		p.Images():            "/var/lib/pinfold/images",
		p.CNICache():          "/var/lib/pinfold/cni",
		p.Sandbox("p"):        "/var/lib/pinfold/pods/p",
		p.Files("p"):          "/var/lib/pinfold/pods/p/files",
		p.Containers("p"):     "/var/lib/pinfold/pods/p/containers",
		p.Exit("p", "c"):      "/var/lib/pinfold/pods/p/containers/c.exit",
		p.Layer("p", "c"):     "/var/lib/pinfold/pods/p/layers/c",
		p.Upper("p", "c"):     "/var/lib/pinfold/pods/p/layers/c/upper",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestARecordIsThereWhetherItCanBeReadOrNot(t *testing.T) {
	p := Paths{Root: t.TempDir()}
	if err := os.MkdirAll(p.Containers("pod"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"whole.json", "torn.intent"} {
		if err := os.WriteFile(filepath.Join(p.Containers("pod"), name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for id, want := range map[string]bool{"pod": true, "whole": true, "torn": true, "other": false} {
		if got := p.HasRecord(id); got != want {
			t.Errorf("%s: %t, want %t", id, got, want)
		}
	}
}
