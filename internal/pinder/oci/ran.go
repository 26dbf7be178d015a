package oci

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// ran is what is told of a call: when it was, how it ended, and the names of what the runtime was given.
func ran(rt wire.Runtime, c Call, began time.Time, err error) wire.Ran {
	r := wire.Ran{
		Program: filepath.Base(rt.Binary), Command: c.Step, Flags: []string{"--root", "--log", "--log-format"},
		Began: began.UnixNano(), Took: time.Since(began).Nanoseconds(), Failed: err != nil,
	}
	if rt.SystemdCgroup {
		r.Flags = append(r.Flags, "--systemd-cgroup")
	}
	for _, arg := range c.Args {
		if name, _, _ := strings.Cut(arg, "="); strings.HasPrefix(name, "--") {
			r.Flags = append(r.Flags, name)
		}
	}
	if n := len(c.Args); n > 0 {
		r.ID = c.Args[n-1] // every command of the runtime ends with the container
	}
	return r
}
