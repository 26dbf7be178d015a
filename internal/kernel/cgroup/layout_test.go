package cgroup

import "testing"

func TestALayoutSaysTheSameToAll(t *testing.T) {
	cgroupfs, systemd, old := Layout{}, Layout{Systemd: true, Scope: ScopePrefix}, Layout{Systemd: true}
	for _, c := range []struct {
		layout                  Layout
		asked                   string
		parent, container, path string // what CNI and NRI, the OCI runtime and statistics are told
		ours                    bool
	}{
		{cgroupfs, "", "/pinfold-pod", "/pinfold-pod/id", "/pinfold-pod", true},
		{cgroupfs, "/kubepods/pod1", "/kubepods/pod1", "/kubepods/pod1/id", "/kubepods/pod1", false},
		{cgroupfs, "kubepods", "kubepods", "/kubepods/id", "/kubepods", false},
		{cgroupfs, "/kubepods.slice", "/kubepods.slice", "/kubepods.slice/id", "/kubepods.slice", false},
		{systemd, "", "pinfold.slice", "pinfold.slice:cri-containerd:id", "/pinfold.slice", false},
		{systemd, "system.slice", "system.slice", "system.slice:cri-containerd:id", "/system.slice", false},
		{systemd, "-.slice", "-.slice", "-.slice:cri-containerd:id", "/", false},
		{
			systemd, "/kubepods.slice/kubepods-pod1.slice", "/kubepods.slice/kubepods-pod1.slice",
			"kubepods-pod1.slice:cri-containerd:id", "/kubepods.slice/kubepods-pod1.slice", false,
		},
		{
			systemd, "kubepods-burstable-pod1.slice", "kubepods-burstable-pod1.slice",
			"kubepods-burstable-pod1.slice:cri-containerd:id", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice", false,
		},
		{old, "", "pinfold.slice", "pinfold.slice:pinfold:id", "/pinfold.slice", false},
		{old, "system.slice", "system.slice", "system.slice:pinfold:id", "/system.slice", false},
		{
			systemd, "/kubepods/kubepods-pod1.slice", "/kubepods/kubepods-pod1.slice",
			"kubepods-pod1.slice:cri-containerd:id", "/kubepods.slice/kubepods-pod1.slice", false,
		},
	} {
		g := c.layout.Pod(c.asked, "pod")
		if g.Parent != c.parent || g.Container("id") != c.container || g.Path() != c.path || g.Ours != c.ours || g.Asked != (c.asked != "") {
			t.Errorf("%+v, %q: %+v, %q, %q", c.layout, c.asked, g, g.Container("id"), g.Path())
		}
		if err := c.layout.Check(c.asked); err != nil {
			t.Errorf("%q: %v", c.asked, err)
		}
	}
}

func TestAParentThatDoesNotFitTheDriverIsRefused(t *testing.T) {
	for _, l := range []Layout{{}, {Systemd: true}} {
		for _, asked := range []string{"/a/../b.slice", "a\n.slice", "\xff.slice"} {
			if l.Check(asked) == nil {
				t.Errorf("%+v takes %q", l, asked)
			}
		}
	}
	for _, asked := range []string{"/kubepods/pod1", ".slice", "a--b.slice", "-a.slice", "a-.slice", "a:b.slice", "a b.slice"} {
		if (Layout{Systemd: true}).Check(asked) == nil {
			t.Errorf("systemd takes %q", asked)
		}
	}
}

func TestPluginsAreBelowTheDaemonWhereSystemdHasTheHierarchy(t *testing.T) {
	systemd := Layout{Systemd: true}
	if got := systemd.Plugins("system.slice/pinfold.service"); got != "system.slice/pinfold.service/cni" {
		t.Error(got)
	}
	if got := systemd.Plugins("") + (Layout{}).Plugins("a"); got != "" {
		t.Error(got)
	}
}

func TestAContainersGroupIsKnownByItsName(t *testing.T) {
	for group, want := range map[string]string{
		"/kubepods/pod1/id":                         "/kubepods/pod1/id",
		"/kubepods/pod1/id/init.scope":              "/kubepods/pod1/id",
		"/pinfold.slice/pinfold-id.scope":           "/pinfold.slice/pinfold-id.scope",
		"/pinfold.slice/pinfold-id.scope/a/b":       "/pinfold.slice/pinfold-id.scope",
		"/kubepods.slice/cri-containerd-id.scope/a": "/kubepods.slice/cri-containerd-id.scope",
		"/a/id/b/id/c":                              "/a/id/b/id",
		"/pinfold-id/other":                         "/pinfold-id",
		"/pinfold.slice/pinfold-other-idx.scope":    "",
		"/kubepods/pod1/xid":                        "",
		"/id.scope":                                 "",
		"/":                                         "",
		"":                                          "",
	} {
		if got := UpTo(group, "id"); got != want {
			t.Errorf("%q: %q, want %q", group, got, want)
		}
	}
}
