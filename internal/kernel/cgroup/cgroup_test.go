package cgroup

import "testing"

func TestTheOwnGroupIsThatOfTheUnifiedHierarchy(t *testing.T) {
	for name, c := range map[string]struct{ groups, want string }{
		"pure":                      {"0::/system.slice/pinfold.service\n", "system.slice/pinfold.service"},
		"hybrid":                    {"4:memory:/a\n1:name=systemd:/b\n0::/c/d\n", "c/d"},
		"the root":                  {"0::/\n", ""},
		"outside of this namespace": {"0::/../other\n", ""},
		"version 1 alone":           {"4:memory:/a\n", ""},
		"a name with a colon":       {"0::/a:b/c\n", "a:b/c"},
	} {
		if got := unifiedPath(c.groups); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
