package metrics

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/pinfold-run/pinfold/internal/steps"
)

var update = flag.Bool("update", false, "write the table of docs/metrics.md")

var errBroken = errors.New("broken")

// code is as that of package cri.
func code(err error) string {
	if err == nil {
		return "OK"
	}
	return "Internal"
}

// full is a state in which every metric has a value.
func full() State {
	return State{
		Flights:  []steps.Flight{{Operation: "RunPodSandbox", Step: "network", Began: time.Now().Add(-time.Minute)}},
		Debts:    []Debt{{Kind: "sandbox", Since: time.Now().Add(-time.Hour)}},
		Objects:  map[Object]int{{Kind: "sandbox", State: "ready"}: 2},
		Ends:     map[string]uint64{"OOMKilled": 3, "Completed": 1},
		Images:   Images{Count: 1, Bytes: 2},
		Disks:    []Disk{{Directory: "root", Size: 10, Free: 5}},
		Events:   Events{Added: 5, Dropped: 1, Readers: 1},
		Sessions: []Sessions{{Kind: "exec", Protocol: "spdy", Open: 1, Total: 4}},
		Pinder:   Pinder{Connected: true, Starts: 1, Replaced: map[string]uint64{"reaper": 1}, Logs: &Logs{Bytes: 1, LostBytes: 2, Gaps: 3, ReadersCut: 4}},
	}
}

// used is a Metrics of which every metric was used.
func used(t *testing.T) *Metrics {
	t.Helper()
	m := New(Options{Version: "1.2.3", Code: code, Read: func(context.Context) (State, bool) { return full(), true }})
	m.Serves(map[string]grpc.ServiceInfo{"runtime.v1.RuntimeService": {Methods: []grpc.MethodInfo{{Name: "RunPodSandbox"}}}})
	_ = steps.NewEngine(m).Run(t.Context(), steps.Operation{Name: "RunPodSandbox", Steps: []steps.Step{
		{Name: "record", Do: func(context.Context) error { return nil }, Undo: func(context.Context) error { return nil }},
		{Name: "network", Do: func(context.Context) error { return errBroken }, Undo: func(context.Context) error { return errBroken }},
	}})
	m.serve(t, "/runtime.v1.RuntimeService/RunPodSandbox", status.Error(codes.NotFound, ""))
	for _, c := range []steps.Call{{Kind: steps.CNI, Program: "bridge", Command: "ADD"}, {Kind: steps.Layer, Command: "unpack"}} {
		_, ended := m.Call(t.Context(), c)
		ended(errBroken)
	}
	m.Pulled(Pull{Registry: "registry.example", Took: time.Second, Bytes: 10, Fetched: 1, Reused: 2})
	m.Recovered(time.Second, map[Object]int{{Kind: "sandbox", State: "kept"}: 1})
	return m
}

// serve is one gRPC call.
func (m *Metrics) serve(t *testing.T, method string, err error) {
	t.Helper()
	ctx := m.TagRPC(t.Context(), &stats.RPCTagInfo{FullMethodName: method})
	m.HandleRPC(ctx, &stats.Begin{})
	m.HandleRPC(ctx, &stats.End{Error: err})
}

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

func TestThePageOfMetricsListsThemAll(t *testing.T) {
	const file, begin, end = "../../docs/metrics.md", "<!-- metrics: begin -->\n", "<!-- metrics: end -->"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(data), begin)
	listed, after, ok := strings.Cut(rest, end)
	if !ok {
		t.Fatalf("%s has no marks for the table", file)
	}
	table := table(used(t).definitions)
	if listed == table {
		return
	}
	if !*update {
		t.Fatalf("the table of %s is not that of the code: run go test ./internal/metrics -update", file)
	}
	if err := os.WriteFile(file, []byte(before+begin+table+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

func table(all []definition) string {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b definition) int { return strings.Compare(a.name, b.name) })
	var b strings.Builder
	b.WriteString("| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, d := range all {
		labels := "–"
		if len(d.labels) > 0 {
			labels = "`" + strings.Join(d.labels, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", d.name, d.kind, labels, d.help)
	}
	return b.String()
}

func TestEveryMetricHasAValueAndAGoodName(t *testing.T) {
	m := used(t)
	problems, err := testutil.GatherAndLint(m.registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	text := scrape(t, m)
	for _, d := range m.definitions {
		if !strings.Contains(text, "# TYPE "+d.name+" "+d.kind+"\n") {
			t.Errorf("%s (%s) is not in the scrape", d.name, d.kind)
		}
	}
}

func TestAStepIsCountedByOperationAndWay(t *testing.T) {
	text := scrape(t, used(t))
	for _, want := range []string{
		`pinfold_step_duration_seconds_count{operation="RunPodSandbox",step="record",way="do"} 1`,
		`pinfold_step_duration_seconds_count{operation="RunPodSandbox",step="record",way="undo"} 1`,
		`pinfold_step_failures_total{operation="RunPodSandbox",step="network",way="do"} 1`,
		`pinfold_step_failures_total{operation="RunPodSandbox",step="network",way="undo"} 1`,
		`pinfold_operations_total{code="Internal",operation="RunPodSandbox"} 1`,
		`pinfold_operations_in_flight{operation="RunPodSandbox",step="network"} 1`,
		`pinfold_grpc_calls_total{code="NotFound",method="RunPodSandbox",service="RuntimeService"} 1`,
		`pinfold_container_oom_kills_total 3`,
		`pinfold_image_pull_layers_total{result="reused"} 2`,
		`pinfold_build_info{goversion="` + goVersion() + `",version="1.2.3"} 1`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("the scrape has no %s", want)
		}
	}
}

func TestAnOldestAgeIsZeroWhenThereIsNothing(t *testing.T) {
	m := New(Options{Code: code, Read: func(context.Context) (State, bool) { return State{}, true }})
	text := scrape(t, m)
	for _, want := range []string{
		`pinfold_operation_oldest_age_seconds{operation="RunPodSandbox"} 0`, `pinfold_debt_oldest_age_seconds 0`, `pinfold_debts{kind="sandbox"} 0`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("the scrape has no %s", want)
		}
	}
}

func TestBeforeTheDaemonServesAScrapeHasNoState(t *testing.T) {
	m := New(Options{Code: code, Read: func(context.Context) (State, bool) { return State{}, false }})
	text := scrape(t, m)
	if !strings.Contains(text, "pinfold_build_info") || strings.Contains(text, "pinfold_debts") {
		t.Errorf("the scrape: %s", text)
	}
}

func TestLabelsThatComeFromOutsideAreBounded(t *testing.T) {
	m := New(Options{Code: code, Read: func(context.Context) (State, bool) { return State{}, true }})
	m.Serves(nil)
	for i := range 1000 {
		m.Pulled(Pull{Registry: fmt.Sprintf("r%d.example", i), Err: errBroken})
		m.serve(t, fmt.Sprintf("/made.up/Method%d", i), status.Error(codes.Unimplemented, ""))
		_, ended := m.Call(t.Context(), steps.Call{Kind: steps.CNI, Program: fmt.Sprintf("plugin%d", i), Command: "ADD"})
		ended(nil)
	}
	text := scrape(t, m)
	if n := strings.Count(text, "\npinfold_image_pulls_total{"); n != maxRegistries+1 {
		t.Errorf("%d series of pulls, want %d", n, maxRegistries+1)
	}
	for _, want := range []string{
		`pinfold_image_pulls_total{code="Internal",registry="other"} 980`,
		`pinfold_grpc_calls_total{code="Unimplemented",method="other",service="other"} 1000`,
		`pinfold_program_duration_seconds_count{command="ADD",kind="cni",program="other"} 970`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("the scrape has no %s", want)
		}
	}
}
