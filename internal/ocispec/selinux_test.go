package ocispec

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestSELinuxLabelsAreTheContainersThenThePodsThenThePolicys(t *testing.T) {
	pod := func(options string) string {
		return `{"linux": {"security_context": {"selinux_options": {` + options + `}}}}`
	}
	sc := func(fields string) string { return `{"linux": {"security_context": {` + fields + `}}}` }
	h := node
	h.SELinuxLabels = SELinuxDefaults{Process: "su:sr:st:s0", File: "su:object_r:sf:s0"}
	plain := h
	plain.SELinuxLabels = SELinuxDefaults{Process: "su:sr:st", File: "su:object_r:sf"}
	for _, c := range []struct {
		about, pod, container string
		host                  Host
		process, mount        string
	}{
		{"nothing given", "", "", h, "su:sr:st:CHOSEN", "su:object_r:sf:CHOSEN"},
		{"the usual policy", "", "", node, "system_u:system_r:container_t:CHOSEN", "system_u:object_r:container_file_t:CHOSEN"},
		{"a policy without levels", "", "", plain, "su:sr:st", "su:object_r:sf"},
		{"the pod's", pod(`"type": "pt", "level": "s0:c5"`), "", h, "su:sr:pt:s0:c5", "su:object_r:sf:s0:c5"},
		{"all of the container's", pod(`"type": "pt", "level": "s0:c5"`), sc(`"selinux_options": {"user": "u", "role": "r", "type": "t", "level": "s0:c1,c2"}`), h, "u:r:t:s0:c1,c2", "u:object_r:sf:s0:c1,c2"},
		{"some of the container's", pod(`"user": "pu", "level": "s0:c5"`), sc(`"selinux_options": {"type": "t"}`), h, "pu:sr:t:s0:c5", "pu:object_r:sf:s0:c5"},
		{"privileged", "", sc(`"privileged": true`), h, "", "su:object_r:sf:CHOSEN"},
		{"no SELinux", pod(`"level": "s0:c5"`), sc(`"privileged": true`), bare, "", ""},
	} {
		t.Run(c.about, func(t *testing.T) {
			r := request(t, c.pod, c.container)
			r.Sandbox.SELinuxLevel = "CHOSEN"
			process, mount := SELinuxLabels(c.host, r.Sandbox, r.Config)
			if process != c.process || mount != c.mount {
				t.Errorf("%q and %q, want %q and %q", process, mount, c.process, c.mount)
			}
		})
	}
}

func TestThePodsOwnProcessAndFilesHaveThePodsLabel(t *testing.T) {
	r := request(t, `{"linux": {"security_context": {"selinux_options": {"level": "s0:c5,c6"}}}}`, "")
	s := Init(node, r.Sandbox, InitFiles{})
	if s.Process.SelinuxLabel != "system_u:system_r:container_t:s0:c5,c6" || s.Linux.MountLabel != "system_u:object_r:container_file_t:s0:c5,c6" {
		t.Errorf("%q, %q", s.Process.SelinuxLabel, s.Linux.MountLabel)
	}
}

func TestLevelsAreDifferentAndStable(t *testing.T) {
	seen := map[string]bool{}
	for n := range 50 {
		level := SELinuxLevel("pod", n)
		if level != SELinuxLevel("pod", n) || !selinuxLevel.MatchString(level) || strings.Contains(level, "c1022") || strings.Contains(level, "c1023") {
			t.Errorf("level %d is %q", n, level)
		}
		seen[level] = true
	}
	if len(seen) < 49 {
		t.Errorf("50 tries give %d levels", len(seen))
	}
}

func TestALevelThatIsNoneIsRefusedWhereItMatters(t *testing.T) {
	for level, good := range map[string]bool{
		"s0": true, "s0:c1": true, "s0:c1,c1023": true, "s0:c0.c5,c9": true, "s0-s15:c0.c1023": true, "s0:c1-s1:c1": true,
		"c1": false, "s0:": false, "s0:c1,": false, "s0:c12345": false, "s0,c1": false, "x": false,
	} {
		text := `{"linux": {"security_context": {"selinux_options": {"level": "` + level + `"}}}}`
		err := errors.Join(ValidateContainer(node, podConfig(t), containerConfig(t, text)), ValidateSandbox(node, podConfig(t, text)))
		if (err == nil) != good || !good && !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q: %v", level, err)
		}
		if err := ValidateContainer(bare, podConfig(t), containerConfig(t, text)); err != nil {
			t.Errorf("%q without SELinux: %v", level, err)
		}
	}
}
