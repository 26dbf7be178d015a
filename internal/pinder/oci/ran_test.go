package oci

import (
	"slices"
	"testing"
	"time"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

func TestOfARunTheNamesOfItsOptionsAreToldAndNotTheirValues(t *testing.T) {
	r := ran(wire.Runtime{Binary: "/usr/sbin/runc", SystemdCgroup: true}, Call{
		Step: "create", Args: []string{"create", "--bundle", "/secret", "--pid-file=/secret", "c1"},
	}, time.Now(), nil)
	want := []string{"--root", "--log", "--log-format", "--systemd-cgroup", "--bundle", "--pid-file"}
	if r.ID != "c1" || r.Program != "runc" || r.Command != "create" || r.Failed || !slices.Equal(r.Flags, want) {
		t.Errorf("%+v, want the flags %q", r, want)
	}
}
