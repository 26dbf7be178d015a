package trace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"

	"github.com/pinfold-run/pinfold/internal/steps"
	"github.com/pinfold-run/pinfold/internal/testcollector"
)

var errBroken = errors.New("broken")

func tracer(t *testing.T, log *slog.Logger, environment map[string]string) *Tracer {
	t.Helper()
	for name, value := range environment {
		t.Setenv(name, value) // the exporter reads the environment itself
	}
	tracer, err := New(t.Context(), os.Getenv, "1.2.3", log)
	if err != nil {
		t.Fatal(err)
	}
	return tracer
}

func silent() *slog.Logger { return slog.New(slog.DiscardHandler) }

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// called is the context of a call whose client has a trace.
func called(t *testing.T, tr *Tracer, traceparent string) context.Context {
	t.Helper()
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("traceparent", traceparent))
	return tr.TagRPC(ctx, &stats.RPCTagInfo{})
}

func TestAnOperationContinuesTheClientsTraceAndItsStepsAreChildren(t *testing.T) {
	r := testcollector.Start(t, false)
	tr := tracer(t, silent(), map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": r.URL, "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20hunter2"})
	op := steps.Operation{Name: "RunPodSandbox", Object: "sandbox \xff", Steps: []steps.Step{
		{Name: "record", Do: func(context.Context) error { return nil }, Undo: func(context.Context) error { return nil }},
		{Name: "network", Do: func(ctx context.Context) error {
			_, ended := tr.Call(ctx, steps.Call{Kind: steps.CNI, Program: "bridge", Command: "ADD", Arguments: []string{"CNI_ARGS.K8S_POD_NAME"}})
			ended(nil)
			_, ended = tr.Call(ctx, steps.Call{Kind: steps.OCI, Program: "runc", Command: "create", Began: time.Unix(1000, 0), Took: time.Second})
			ended(errBroken)
			return errBroken
		}},
	}}
	if err := steps.NewEngine(tr).Run(called(t, tr, parent), op); err == nil {
		t.Fatal("the operation did not fail")
	}
	tr.Close()
	operation := r.Span(t, "RunPodSandbox", nil)
	if got := operation.GetTraceId(); string(got) != "\x0a\xf7\x65\x19\x16\xcd\x43\xdd\x84\x48\xeb\x21\x1c\x80\x31\x9c" {
		t.Errorf("the trace is %x", got)
	}
	if got := operation.GetParentSpanId(); string(got) != "\xb7\xad\x6b\x71\x69\x20\x33\x31" {
		t.Errorf("the parent of the operation is %x", got)
	}
	if s := operation.GetStatus(); s.GetCode() != otlp.Status_STATUS_CODE_ERROR || s.GetMessage() != "step network failed: broken" {
		t.Errorf("the operation's status: %v", s)
	}
	network := r.Span(t, "network", operation)
	for name, above := range map[string]*otlp.Span{"record": operation, "network": operation, "undo record": operation, "bridge ADD": network, "runc create": network} {
		r.Span(t, name, above)
	}
	if s := network.GetStatus().GetCode(); s != otlp.Status_STATUS_CODE_ERROR {
		t.Errorf("the failed step's status: %v", s)
	}
	if s := r.Span(t, "record", nil).GetStatus().GetCode(); s != otlp.Status_STATUS_CODE_UNSET {
		t.Errorf("the good step's status: %v", s)
	}
	if s := r.Span(t, "runc create", nil); s.GetStartTimeUnixNano() != 1000e9 || s.GetEndTimeUnixNano() != 1001e9 {
		t.Errorf("the runtime ran from %d to %d", s.GetStartTimeUnixNano(), s.GetEndTimeUnixNano())
	}
	if got := r.Header("authorization"); len(got) != 1 || got[0] != "Bearer hunter2" {
		t.Errorf("the header: %v", got)
	}
	if n := tr.Dropped(); n != 0 {
		t.Errorf("%d spans were dropped", n)
	}
}

func TestATraceThatTheClientDoesNotSampleIsNotSent(t *testing.T) {
	r := testcollector.Start(t, false)
	tr := tracer(t, silent(), map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": r.URL})
	run(t, tr, called(t, tr, strings.TrimSuffix(parent, "01")+"00"))
	tr.Close()
	if len(r.Spans()) != 0 {
		t.Errorf("%d spans were sent", len(r.Spans()))
	}
}

// run is an operation of one step.
func run(t *testing.T, tr *Tracer, ctx context.Context) {
	t.Helper()
	_ = steps.NewEngine(tr).Run(ctx, steps.Operation{Name: "StopPodSandbox", Steps: []steps.Step{{Name: "init"}}})
}

func TestACollectorThatHangsDelaysNothingAndSpansBeyondTheQueueAreCounted(t *testing.T) {
	r := testcollector.Start(t, true)
	tr := tracer(t, silent(), map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": r.URL, "OTEL_BSP_MAX_QUEUE_SIZE": "100"})
	began := time.Now()
	const operations = 1000
	for range operations {
		run(t, tr, t.Context())
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("%d operations took %s", operations, took)
	}
	if got, want := tr.Dropped(), uint64(2*operations-100); got != want {
		t.Errorf("%d spans were dropped, want %d", got, want)
	}
	began = time.Now()
	tr.Close()
	if took := time.Since(began); took > endTimeout+time.Second {
		t.Errorf("the end took %s", took)
	}
}

func TestAnExportersErrorsAreLoggedOnceInAWhileAndWithoutCredentials(t *testing.T) {
	var text bytes.Buffer
	c := &complaints{log: slog.New(slog.NewTextHandler(&text, nil)), secrets: forms("Bearer%20hunter2")}
	for range 100 {
		c.Handle(errors.New(`403: "Bearer hunter2" is unknown; hunter2`))
	}
	if n := strings.Count(text.String(), "traces are not exported"); n != 1 {
		t.Errorf("%d lines", n)
	}
	if strings.Contains(text.String(), "hunter2") {
		t.Errorf("the log has the credential: %s", text.String())
	}
}

// A colon in place of "=" and a password with a slash are what operators write by mistake.
func TestValuesOfVariablesThatCannotBeReadAreNowhere(t *testing.T) {
	for _, name := range []string{"HEADERS", "ENDPOINT"} {
		for _, value := range []string{"Authorization: Bearer hunter2", "Authorization: Bearer hunter2==", "authorization=hunter2%zz", "http://me:hunter2/x@127.0.0.1:1", "http://me:%zzhunter2@127.0.0.1:1"} {
			t.Run(name+" "+value, func(t *testing.T) {
				var text bytes.Buffer
				t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
				t.Setenv("OTEL_EXPORTER_OTLP_"+name, value)
				tr, err := New(t.Context(), os.Getenv, "1.2.3", slog.New(slog.NewTextHandler(&text, nil)))
				tr.Close()
				if all := fmt.Sprint(err, text.String()); strings.Contains(all, "hunter2") {
					t.Error(all)
				}
			})
		}
	}
}

func TestAVariableThatCannotBeReadIsInTheLog(t *testing.T) {
	var text bytes.Buffer
	tracer(t, slog.New(slog.NewTextHandler(&text, nil)), map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_HEADERS": "Authorization: Bearer hunter2", "OTEL_EXPORTER_OTLP_CERTIFICATE": "/no/such/hunter2",
	}).Close()
	for _, want := range []string{"parse headers", "no such file"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in the log: %s", want, text.String())
		}
	}
	if strings.Contains(text.String(), "hunter2") {
		t.Errorf("the log has the value: %s", text.String())
	}
}

func TestWithoutAnEndpointThereIsNeitherATracerNorAGoroutine(t *testing.T) {
	for _, environment := range []map[string]string{
		{},
		{"OTEL_SERVICE_NAME": "x"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
	} {
		before := runtime.NumGoroutine()
		tr, err := New(t.Context(), func(name string) string { return environment[name] }, "1", silent())
		if err != nil || !tr.Off() || runtime.NumGoroutine() > before {
			t.Errorf("%v: tracer %v, %v, %d goroutines more", environment, tr, err, runtime.NumGoroutine()-before)
		}
		tr.Close()
	}
}

func TestAProtocolThatIsNotSpokenIsNamed(t *testing.T) {
	environment := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}
	_, err := New(t.Context(), func(name string) string { return environment[name] }, "1", silent())
	if err == nil || !strings.Contains(err.Error(), "http/json") {
		t.Errorf("%v", err)
	}
}

func TestProgramsThatTheDaemonStartsGetNoCredentialsOfTheCollector(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=hunter2")
	Forget()
	if _, ok := os.LookupEnv("OTEL_EXPORTER_OTLP_HEADERS"); ok {
		t.Error("the variable is still there")
	}
}
