package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// metricNames finds the names of metrics in expressions of PromQL.
var metricNames = regexp.MustCompile(`\b(pinfold|go|process)_[a-z0-9_]+\b`)

// alertExpressions finds the expressions of the rules: those of one line, and blocks.
var alertExpressions = regexp.MustCompile(`(?m)^    expr: (?:\|\n((?:      .*\n)+)|(.*)\n)`)

// contribExpressions are the expressions of the dashboard and of the alert rules.
func contribExpressions(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile("../contrib/grafana/pinfold.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(data, &dashboard); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			all = append(all, target.Expr)
		}
	}
	rules, err := os.ReadFile("../contrib/prometheus/pinfold.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range alertExpressions.FindAllStringSubmatch(string(rules), -1) {
		all = append(all, found[1]+found[2])
	}
	if len(all) < 50 {
		t.Fatalf("only %d expressions were found", len(all))
	}
	return all
}

// asked checks that each metric of the dashboard and of the alert rules is in a scrape of a daemon that has run pods.
func (n *node) asked(scrape string) {
	n.t.Helper()
	for _, expression := range contribExpressions(n.t) {
		for _, name := range metricNames.FindAllString(expression, -1) {
			if !strings.Contains(scrape, "\n"+name+"{") && !strings.Contains(scrape, "\n"+name+" ") {
				n.t.Errorf("%s is in no scrape: %s", name, expression)
			}
		}
	}
}

func TestEveryAlertHasAPageThatSaysWhatToDo(t *testing.T) {
	rules, err := os.ReadFile("../contrib/prometheus/pinfold.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	alerts := regexp.MustCompile(`(?m)^  - alert: (\w+)$`).FindAllStringSubmatch(string(rules), -1)
	for _, alert := range alerts {
		if !strings.Contains(string(page), "\n### "+alert[1]+"\n") {
			t.Errorf("docs/metrics.md says nothing of %s", alert[1])
		}
		if !strings.Contains(string(rules), "docs/metrics.md#"+strings.ToLower(alert[1])+"\n") {
			t.Errorf("%s has no link to its page", alert[1])
		}
	}
	if len(alerts) < 8 {
		t.Errorf("only %d alerts were found", len(alerts))
	}
	tests, err := os.ReadFile(filepath.Join("../contrib/prometheus", "pinfold.rules_test.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(alerts, func(a []string) bool { return !strings.Contains(string(tests), "alertname: "+a[1]+"\n") }) {
		t.Error("an alert has no test in pinfold.rules_test.yaml")
	}
}

// TestPromtoolAgreesWithRulesAndDashboard is left out where there is no promtool: Debian has it in the package prometheus, and
// $PINFOLD_PROMTOOL may name one.
func TestPromtoolAgreesWithRulesAndDashboard(t *testing.T) {
	promtool, err := exec.LookPath(cmp.Or(os.Getenv("PINFOLD_PROMTOOL"), "promtool"))
	if err != nil {
		t.Skip("there is no promtool")
	}
	rules := "groups:\n- name: dashboard\n  rules:\n"
	for i, expression := range contribExpressions(t) {
		text, err := json.Marshal(strings.NewReplacer("$__rate_interval", "1m", "$instance", ".*").Replace(expression))
		if err != nil {
			t.Fatal(err)
		}
		rules += fmt.Sprintf("  - record: dashboard:%d\n    expr: %s\n", i, text)
	}
	dashboard := filepath.Join(t.TempDir(), "dashboard.yaml")
	if err := os.WriteFile(dashboard, []byte(rules), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"check", "rules", "../contrib/prometheus/pinfold.rules.yaml"},
		{"test", "rules", "../contrib/prometheus/pinfold.rules_test.yaml"},
		{"check", "rules", dashboard},
	} {
		if out, err := exec.Command(promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}
