package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// findings of pinfold doctor --json.
type doctorReport struct {
	Findings []struct{ Check, Level, What, Remedy string }
}

// doctor examines the machine with the daemon of the test.
func (n *node) doctor(more ...string) (doctorReport, int) {
	n.t.Helper()
	n.write("doctor.toml", fmt.Sprintf("root = %q\nstate = %q\nsocket = %q\ncni_conf_dir = %q\ncni_bin_dir = %q\ndefault_runtime = %q\n[runtimes]\n%s = %q\n",
		n.path("root"), n.path("state"), n.socket(), n.path("cni"), binaries.cniBin, binaries.handler, binaries.handler, binaries.runtime))
	out, code := n.pinfold(append([]string{"doctor", "--json", "--config", n.path("doctor.toml")}, more...)...)
	var report doctorReport
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		n.t.Fatalf("%v in %s", err, out)
	}
	return report, code
}

// level is that of a check, the worst one if it says more than one thing; what are its texts.
func (r doctorReport) level(check string) (level, what string) {
	order := map[string]int{"ok": 1, "unknown": 2, "warning": 3, "error": 4}
	for _, f := range r.Findings {
		if f.Check == check {
			what += f.What + "; " + f.Remedy + "\n"
			if order[f.Level] > order[level] {
				level = f.Level
			}
		}
	}
	return level, what
}

func TestDoctorExaminesThisNodeWithAndWithoutTheDaemon(t *testing.T) {
	n := started(t)
	report, code := n.doctor()
	for _, check := range []string{"daemon", "configuration", "kernel", "user-namespaces", "runtimes", "network"} {
		if level, what := report.level(check); level != "ok" && check != "configuration" { // pinder is not in $PATH here
			t.Errorf("%s: %s %s", check, level, what)
		}
	}
	want := 0
	for _, f := range report.Findings {
		if f.Level == "warning" || f.Level == "error" {
			want = 1
			if f.Remedy == "" {
				t.Errorf("no remedy: %+v", f)
			}
		} else if f.Level == "unknown" && want == 0 {
			want = 2
		}
	}
	if code != want {
		t.Errorf("exit code %d, want %d: %+v", code, want, report)
	}
	n.kill()
	n.write("cni/00-first.conflist", "{")
	report, code = n.doctor("--kubelet-config", n.path("kubelet.yaml"))
	if level, what := report.level("daemon"); level != "error" || !strings.Contains(what, "systemctl") {
		t.Errorf("without a daemon: %s %s", level, what)
	}
	if level, what := report.level("network"); level != "error" || !strings.Contains(what, "00-first.conflist") {
		t.Errorf("with a broken network: %s %s", level, what)
	}
	if level, _ := report.level("kubelet"); level != "unknown" || code != 1 {
		t.Errorf("with a kubelet's file that is not there: %s, exit code %d", level, code)
	}
	if out, code := n.pinfold("doctor", "now"); code != 64 {
		t.Errorf("an argument: exit code %d: %s", code, out)
	}
}
