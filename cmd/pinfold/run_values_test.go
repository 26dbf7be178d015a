package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// strange are texts that no value of a flag may be taken from.
var strange = []string{"", " ", ":", "::", ":::", "-1", "+1", "0x10", "1_000", "NaN", "Inf", "∞", "１", "käse", "\x00", "\xff", "1e999999999", strings.Repeat("9", 400), "--", "a b"}

func TestASizeIsReadAsInAPodsSpecification(t *testing.T) {
	for text, want := range map[string]int64{
		"6291456": 6 << 20, "256Mi": 256 << 20, "256M": 256e6, "1.5Gi": 3 << 29, "1e9": 1e9, "1E9": 1e9, "7000k": 7e6, "8192Ki": 8 << 20,
		"1Ti": 1 << 40, "7Ei": 7 << 60, "0.5G": 5e8, "9223372036854775807": 1<<63 - 1,
	} {
		var m memory
		if err := m.Set(text); err != nil || int64(m) != want {
			t.Errorf("%q: %d %v, want %d", text, m, err, want)
		}
	}
	for _, bad := range append(strange, "0", "1e3", "6Mi6", "256m", "256mi", "256MB", "256MiB", "1g", "Mi", ".5Gi", "1.Gi", "-256Mi", "8Ei", "9223372036854775808", "1e99", "5Mi") {
		var m memory
		if err := m.Set(bad); err == nil {
			t.Errorf("%q was taken as %d", bad, m)
		}
	}
	if err := new(memory).Set("256m"); !strings.Contains(err.Error(), "256Mi") {
		t.Errorf("256m, which is a quarter of a byte in Kubernetes: %v", err)
	}
}

func TestProcessorsBecomeAQuota(t *testing.T) {
	for text, want := range map[string]int64{"1.5": 150_000, "1": 100_000, "0.01": 1000, "0.0105": 1100, "128": 12_800_000} {
		var c cpus
		if err := c.Set(text); err != nil || c.quota() != want {
			t.Errorf("%q: %d %v, want %d", text, c.quota(), err, want)
		}
	}
	for _, bad := range append(strange, "0", "0.009", "10001", "1e2", ".5", "1.", "1,5") {
		if err := new(cpus).Set(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestAVolumeIsAPathOfTheNodeAPlaceAndOptions(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]*runtimeapi.Mount{
		"/a:/b":            {HostPath: "/a", ContainerPath: "/b"},
		"/a:/b:ro":         {HostPath: "/a", ContainerPath: "/b", Readonly: true},
		"/a:/b:rw,rshared": {HostPath: "/a", ContainerPath: "/b", Propagation: runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL},
		"/a:/b:slave,ro":   {HostPath: "/a", ContainerPath: "/b", Readonly: true, Propagation: runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER},
		"./a:/b":           {HostPath: filepath.Join(here, "a"), ContainerPath: "/b"},
		".:/b":             {HostPath: here, ContainerPath: "/b"},
		"/käse 山:/b":       {HostPath: "/käse 山", ContainerPath: "/b"},
	} {
		if got, err := parseVolume(text); err != nil || got.String() != want.String() {
			t.Errorf("%q: %v %v", text, got, err)
		}
	}
	for _, bad := range append(strange, "/a", "/a:", ":/b", "/a:b", "/a:/", "/a:/..", "name:/b", "/a:/b:", "/a:/b:ro,ro", "/a:/b:ro,rw", "/a:/b:shared,slave", "/a:/b:exec", "/a:/b:ro:x", "/a:/b\x00", "/\xff:/b") {
		if got, err := parseVolume(bad); err == nil {
			t.Errorf("%q was taken as %v", bad, got)
		}
	}
}

func TestAPortIsOneOfTheNodeAndOneOfTheContainer(t *testing.T) {
	for text, want := range map[string]*runtimeapi.PortMapping{
		"8080:80":              {HostPort: 8080, ContainerPort: 80},
		"53:53/udp":            {HostPort: 53, ContainerPort: 53, Protocol: runtimeapi.Protocol_UDP},
		"1:65535/SCTP":         {HostPort: 1, ContainerPort: 65535, Protocol: runtimeapi.Protocol_SCTP},
		"127.0.0.1:8080:80":    {HostPort: 8080, ContainerPort: 80, HostIp: "127.0.0.1"},
		"[::1]:8080:80/tcp":    {HostPort: 8080, ContainerPort: 80, HostIp: "::1"},
		"[2001:DB8::1]:8080:1": {HostPort: 8080, ContainerPort: 1, HostIp: "2001:db8::1"},
	} {
		if got, err := parsePort(text); err != nil || got.String() != want.String() {
			t.Errorf("%q: %v %v", text, got, err)
		}
	}
	for _, bad := range append(strange, "0", "80", "0:80", "80:0", "65536:80", "80:65536", "-1:80", "+1:80", "80:80/icmp", "80:80/", "80-90:80-90", "host:80:80", "::1:80:80", "[::1%lo]:80:80", "[]:80:80", ":80:80", "1.2.3.4:80") {
		if got, err := parsePort(bad); err == nil {
			t.Errorf("%q was taken as %v", bad, got)
		}
	}
}

func TestAUserIsAnIDOrANameAndAGroupAnID(t *testing.T) {
	for text, want := range map[string]string{
		"0": "0//", "1000:100": "1000//100", "www": "/www/", "www-data:33": "/www-data/33", "4294967294:0": "4294967294//0",
	} {
		var u user
		err := u.Set(text)
		number := func(v *runtimeapi.Int64Value) string {
			if v == nil {
				return ""
			}
			return fmt.Sprint(v.Value)
		}
		if got := number(u.uid) + "/" + u.name + "/" + number(u.group); err != nil || got != want {
			t.Errorf("%q: %s %v, want %s", text, got, err, want)
		}
	}
	for _, bad := range append(strange, ":100", "1000:", "1000:wheel", "4294967295", "4294967296", "-1:0", "0:-1", "12ab", "a/b", "www:1:2") {
		if bad == "∞" || bad == "１" || bad == "käse" || bad == "NaN" || bad == "Inf" || bad == "--" {
			continue // names
		}
		if err := new(user).Set(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestAVariableWithoutAValueIsTakenFromTheEnvironment(t *testing.T) {
	t.Setenv("PINFOLD_TEST", "here")
	for text, want := range map[string]string{"A=b": "A=b", "A=": "A=", "A=b=c": "A=b=c", "PINFOLD_TEST": "PINFOLD_TEST=here", "A=\x20x\x20": "A= x ", "é=ü": "é=ü"} {
		if got, err := parseEnv(text); err != nil || got.Key+"="+string(got.Value) != want {
			t.Errorf("%q: %v %v", text, got, err)
		}
	}
	if got, err := parseEnv("PINFOLD_TEST_NOT_SET"); got != nil || err != nil {
		t.Errorf("one that is not set: %v %v", got, err)
	}
	for _, bad := range []string{"", "=", "=x", "a b=c", "a\x00=b", "a=b\x00", "\xff=x"} {
		if got, err := parseEnv(bad); err == nil {
			t.Errorf("%q was taken as %v", bad, got)
		}
	}
}

func TestAFileOfVariablesIsReadByLinesAndItsSecretsAreNotShown(t *testing.T) {
	file := filepath.Join(t.TempDir(), "env")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# comment\n\n  A=1\nB=two words\r\nC=last")
	list, err := readEnvFile(file)
	if err != nil || len(list) != 3 || string(list[1].Value) != "two words" || list[2].Key != "C" {
		t.Errorf("%v %v", list, err)
	}
	write("A=1\nmy secret is\n")
	if _, err := readEnvFile(file); err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("a bad line: %v", err)
	}
	if _, err := readEnvFile(t.TempDir()); err == nil {
		t.Error("a directory was read")
	}
}

func TestOptionsOfARunThatContradictAreRefused(t *testing.T) {
	for _, bad := range []string{
		"--keep --rm image", "--keep -i image", "--keep -t image", "--host-network -p 80:80 image", "--entrypoint= image", "--workdir x image",
		"--userns-range 0:1 image", "--userns-range x image", "--stop-timeout -1 image", "--stop-timeout 25h image", "--stop-timeout x image", "-l x image", "-l run.pinfold/made-by=x image", "-p 0 image", "-m 1e3 image",
	} {
		if o, err := parseRun(strings.Fields(bad)); err == nil {
			t.Errorf("%q was accepted: %+v", bad, o)
		}
	}
	for _, bad := range [][]string{{""}, {"\xff"}, {"image", "a\x00b"}, {"-w", "/\xff", "image"}} {
		if _, err := parseRun(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestARunsRequestHasWhatTheFlagsSay(t *testing.T) {
	o, err := parseRun([]string{
		"--name", "web", "-e", "A=1", "-v", "/srv:/www:ro", "-p", "8080:80", "-m", "256Mi", "--cpus", "1.5", "-u", "1000:100", "-w", "/www", "-l", "a=b", "image", "--", "-x", "y",
	})
	if err != nil {
		t.Fatal(err)
	}
	ids := []*runtimeapi.IDMapping{{HostId: 100000, Length: podIDs}}
	pod := o.pod.config(&runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: ids, Gids: ids})
	c, err := o.container.config(pod)
	if err != nil {
		t.Fatal(err)
	}
	if pod.Hostname != "web" || pod.Labels["a"] != "b" || pod.Labels[ownLabel] != ownLabelValue || len(pod.PortMappings) != 1 || pod.Metadata.Uid == "" {
		t.Errorf("the pod: %v", pod)
	}
	r, sc := c.Linux.Resources, c.Linux.SecurityContext
	if r.MemoryLimitInBytes != 256<<20 || r.CpuQuota != 150_000 || r.CpuPeriod != 100_000 || sc.RunAsUser.GetValue() != 1000 || sc.RunAsGroup.GetValue() != 100 {
		t.Errorf("limits and user: %v %v", r, sc)
	}
	if len(c.Command) != 0 || fmt.Sprint(c.Args) != "[-x y]" || c.WorkingDir != "/www" || len(c.Envs) != 1 || c.Stdin || c.Tty {
		t.Errorf("the process: %v", c)
	}
	if m := c.Mounts[0]; !m.Readonly || m.UidMappings[0].HostId != 100000 || m.GidMappings[0].HostId != 100000 {
		t.Errorf("the volume: %v", m)
	}
	for args, want := range map[string]string{"--entrypoint sh image -- -c x": "[sh] [-c x]", "--entrypoint= image -- id": "[id] []", "image -- id": "[] [id]"} {
		o, err := parseRun(strings.Fields(args))
		if err != nil {
			t.Fatal(err)
		}
		if c, err := o.container.config(pod); err != nil || fmt.Sprint(c.Command, " ", c.Args) != want {
			t.Errorf("%s: %v %v %v", args, c.GetCommand(), c.GetArgs(), err)
		}
	}
}

func TestAGracePeriodIsSecondsOrADuration(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "10": 10, "1m30s": 90, "100ms": 1, "1.5": 2} {
		var s seconds
		if err := s.Set(text); err != nil || s.inSeconds() != want {
			t.Errorf("%q: %d %v", text, s.inSeconds(), err)
		}
	}
	var _ pflag.Value = new(seconds)
}
