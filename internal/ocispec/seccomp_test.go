package ocispec

import (
	"encoding/json"
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

const denyMkdir = `{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}`

func profileWith(rule string) string {
	return `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [` + rule + `]}`
}

// foreignArch is an architecture that the node does not have.
var foreignArch = map[bool]string{true: "s390x", false: "amd64"}[runtime.GOARCH == "amd64"]

var deep = strings.Repeat(`[`, 100000)

// badProfiles are profiles and a part of the expected error.
var badProfiles = [][2]string{
	{``, "JSON"},
	{` `, "JSON"},
	{`null`, "object"},
	{`[]`, "object"},
	{`"SCMP_ACT_ERRNO"`, "object"},
	{`1`, "object"},
	{deep, "object"},
	{`{"defaultAction": ` + deep, "defaultAction"},
	{`{`, "JSON"},
	{"\ufeff{}", "JSON"},
	{"{\"defaultAction\": \"\xff\"}", "UTF-8"},
	{`{}`, "defaultAction"},
	{`{"defaultAction": ""}`, "defaultAction"},
	{`{"defaultAction": null}`, "defaultAction"},
	{`{"defaultAction": 1}`, "defaultAction"},
	{`{"defaultAction": "scmp_act_errno"}`, "scmp_act_errno"},
	{`{"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/s"}`, "SCMP_ACT_NOTIFY"},
	{`{"DefaultAction": "SCMP_ACT_ERRNO"}`, "DefaultAction"},
	{`{"defaultaction": "SCMP_ACT_ERRNO"}`, "defaultaction"},
	{`{"default_action": "SCMP_ACT_ERRNO"}`, "default_action"},
	{`{"syscalls": [` + denyMkdir + `]}`, "defaultAction"},
	{`{"defaultAction": "SCMP_ACT_ERRNO"} {}`, "text after the profile"},
	{`{"defaultAction": "SCMP_ACT_ERRNO"}]`, "text after the profile"},
	{`{"defaultAction": "SCMP_ACT_ERRNO", "defaultAction": "SCMP_ACT_ALLOW"}`, "twice"},
	{`{"defaultAction": "SCMP_ACT_ERRNO", "rules": []}`, "rules"},
	{`{"defaultAction": "SCMP_ACT_ERRNO", "Syscalls": []}`, "Syscalls"},
	{`{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": {}}`, "syscalls"},
	{`{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [null]}`, "syscalls[0]"},
	{`{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["amd64"]}`, "amd64"},
	{`{"defaultAction": "SCMP_ACT_ERRNO", "architectures": "SCMP_ARCH_X86"}`, "architectures"},
	{`{"defaultAction": "SCMP_ACT_ERRNO", "archMap": [{"architecture": "SCMP_ARCH_PDP11"}]}`, "SCMP_ARCH_PDP11"},
	{`{"defaultAction": "SCMP_ACT_ERRNO", "archMap": [{}]}`, "architecture"},
	{`{"defaultAction": "SCMP_ACT_ERRNO", "flags": ["SECCOMP_FILTER_FLAG_NEW_LISTENER"]}`, "NEW_LISTENER"},
	{`{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": -1}`, "-1"},
	{`{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}`, "4096"},
	{`{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": "ENOSYS"}`, "ENOSYS"},
	{`{"defaultAction": "SCMP_ACT_ERRNO", "listenerPath": "s.sock"}`, "s.sock"},
	{`{"defaultAction": "SCMP_ACT_ALLOW"}`, "filters nothing"},
	{`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": null}`, "filters nothing"},
	{profileWith(``), "filters nothing"},
	{profileWith(`{"names": ["mkdir"], "action": "SCMP_ACT_ALLOW"}`), "filters nothing"},
	{profileWith(`{"names": ["mkdri", "no_such_call"], "action": "SCMP_ACT_ERRNO"}`), "filters nothing"},
	{profileWith(`{"names": [], "action": "SCMP_ACT_ERRNO"}`), "names"},
	{profileWith(`{"names": null, "action": "SCMP_ACT_ERRNO"}`), "names"},
	{profileWith(`{"action": "SCMP_ACT_ERRNO"}`), "names"},
	{profileWith(`{"names": "mkdir", "action": "SCMP_ACT_ERRNO"}`), "syscalls[0].names"},
	{profileWith(`{"names": [""], "action": "SCMP_ACT_ERRNO"}`), "syscalls[0].names[0]"},
	{profileWith(`{"names": ["SYS_mkdir"], "action": "SCMP_ACT_ERRNO"}`), "SYS_mkdir"},
	{profileWith(`{"names": ["mkdir "], "action": "SCMP_ACT_ERRNO"}`), "mkdir "},
	{profileWith(`{"names": ["mkdir"]}`), "action"},
	{profileWith(`{"names": ["mkdir"], "action": "SCMP_ACT_DENY"}`), "SCMP_ACT_DENY"},
	{profileWith(`{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}`), "listenerPath"},
	{profileWith(`{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errno": "ENOSYS"}`), "ENOSYS"},
	{profileWith(`{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errno": "EACCES", "errnoRet": 1}`), "EACCES"},
	{profileWith(`{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errno": "EACCES", "errnoRet": 4096}`), "EACCES"},
	{profileWith(`{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "includes": {"arches": ["sh"]}}`), "sh"},
	{profileWith(`{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "includes": {"arches": ["` + foreignArch + `"]}}`), "filters nothing"},
	{profileWith(`{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "includes": {"minKernel": "255.0"}}`), "filters nothing"},
	{profileWith(`{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "excludes": {"minKernel": "2.6"}}`), "filters nothing"},
	{profileWith(`{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1.5}`), "1.5"},
	{profileWith(`{"names": ["mkdir"], "name": "rmdir", "action": "SCMP_ACT_ERRNO"}`), "name"},
	{profileWith(denyMkdir + `, {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["SYS_ADMIN"]}}`), "SYS_ADMIN"},
	{profileWith(denyMkdir + `, {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "includes": {"arches": ["x86_64"]}}`), "x86_64"},
	{profileWith(denyMkdir + `, {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "excludes": {"minKernel": "new"}}`), "new"},
	{profileWith(denyMkdir + `, {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "include": {}}`), "include"},
	{profileWith(`{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [{"value": 1, "op": "SCMP_CMP_EQ"}]}`), "index"},
	{profileWith(`{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}`), "index"},
	{profileWith(`{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 1, "op": "=="}]}`), "=="},
	{`{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"], "archMap": [{"architecture": "SCMP_ARCH_X86_64"}]}`, "archMap"},
	{`{"defaultAction": "SCMP_ACT_ERRNO", "comment": "` + strings.Repeat("x", MaxSeccompProfile) + `"}`, "a profile may have"},
}

func TestASeccompProfileIsRefusedForWhatAnOCIRuntimeWouldIgnore(t *testing.T) {
	for _, c := range badProfiles {
		text := c[0]
		short := text[:min(len(text), 120)]
		r := request(t, `{}`, sc(`"seccomp": {"profile_type": "Localhost", "localhost_ref": "/p.json"}`))
		r.SeccompProfile = []byte(text)
		s, err := Build(node, r)
		if err == nil {
			t.Errorf("%s was accepted, as %+v", short, s.Linux.Seccomp)
			continue
		}
		refusal{"", "linux.security_context.seccomp.localhost_ref", "/p.json"}.check(t, err, errdefs.ErrInvalidArgument)
		if !strings.Contains(err.Error(), c[1]) || len(err.Error()) > 2000 {
			t.Errorf("%s: %v does not name %s", short, err, c[1])
		}
	}
}

func TestASeccompProfileOfTheFieldIsTaken(t *testing.T) {
	docker, err := json.Marshal(seccomp.DefaultProfile())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"Docker's default":  string(docker),
		"audit":             `{"defaultAction": "SCMP_ACT_LOG"}`,
		"violation":         `{"defaultAction": "SCMP_ACT_ERRNO"}`,
		"fine-grained":      `{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], "syscalls": [{"names": ["accept4", "brand_new_call"], "action": "SCMP_ACT_ALLOW"}]}`,
		"block one":         profileWith(denyMkdir),
		"old Docker":        profileWith(`{"name": "mkdir", "action": "SCMP_ACT_ERRNO", "args": null}`),
		"containers/common": `{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "defaultErrno": "ENOSYS", "syscalls": [{"names": ["bdflush"], "action": "SCMP_ACT_ERRNO", "args": [], "comment": "", "includes": {}, "excludes": {}, "errnoRet": 1, "errno": "EPERM"}]}`,
		"errno names":       profileWith(`{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errno": "EPERM"}, {"names": ["rmdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95, "errno": "EOPNOTSUPP"}`),
		"value left out":    profileWith(`{"names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "op": "SCMP_CMP_EQ"}]}`),
		"for all others":    profileWith(`{"names": ["mount"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_ADMIN"]}}`),
		"listener":          `{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/l.sock", "listenerMetadata": "m", "flags": ["SECCOMP_FILTER_FLAG_LOG"], "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}`,
		"arguments":         profileWith(`{"names": ["clone"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}`),
	} {
		r := request(t, `{}`, sc(`"seccomp": {"profile_type": "Localhost", "localhost_ref": "/p.json"}`))
		r.SeccompProfile = []byte(text)
		s, err := Build(node, r)
		if err != nil || s.Linux.Seccomp == nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := CheckSeccomp(s.Linux.Seccomp); err != nil {
			t.Errorf("%s: as built: %v", name, err)
		}
	}
}

// Docker's form has conditions, which count.
func TestTheConditionsOfASeccompProfileAreObeyed(t *testing.T) {
	const text = `{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
	 {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
	 {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}}]}`
	for caps, want := range map[string]string{``: "ptrace", `, "capabilities": {"add_capabilities": ["SYS_ADMIN"]}`: "mount"} {
		r := request(t, `{}`, sc(`"seccomp": {"profile_type": "Localhost", "localhost_ref": "/p.json"}`+caps))
		r.SeccompProfile = []byte(text)
		rules := build(t, node, r).Linux.Seccomp.Syscalls
		if len(rules) != 1 || rules[0].Names[0] != want {
			t.Errorf("with %q: %v", caps, rules)
		}
	}
	some := profileWith(`{"names": ["mount"], "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["CAP_SYS_ADMIN"]}}`)
	if err := CheckSeccompProfile([]byte(some)); err != nil {
		t.Errorf("a profile that restricts some containers: %v", err)
	}
}

func TestAFilterWithoutDefaultActionIsNone(t *testing.T) {
	if err := CheckSeccomp(&specs.LinuxSeccomp{}); err == nil || !strings.Contains(err.Error(), "defaultAction") {
		t.Errorf("an empty filter: %v", err)
	}
	filter, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
	if err != nil || CheckSeccomp(filter) != nil {
		t.Errorf("the default profile: %v %v", err, CheckSeccomp(filter))
	}
}

// FuzzSeccompProfile: nothing panics, and an accepted profile filters.
func FuzzSeccompProfile(f *testing.F) {
	for _, text := range []string{`{}`, `null`, profileWith(denyMkdir), `{"defaultAction": "SCMP_ACT_LOG", "syscalls": [{"name": "x", "action": "SCMP_ACT_TRAP", "includes": {"minKernel": "4.8"}}]}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}}
		if filter, err := loadSeccomp(data, s); err == nil && (filter == nil || filter.DefaultAction == "") {
			t.Errorf("%q was taken, as %v", data, filter)
		}
	})
}
