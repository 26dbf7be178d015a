package trace

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"

	"github.com/pinfold-run/pinfold/internal/image/secret"
)

const (
	// defaultQueue is how many spans wait at most if OTEL_BSP_MAX_QUEUE_SIZE does not say so; maxQueue is the most that it
	// may say. A span takes about a kilobyte.
	defaultQueue = 2048
	maxQueue     = 1 << 16
	// complaintInterval is the least time between two log lines about the exporter.
	complaintInterval = time.Minute
)

// settings are what this package reads of the environment. The exporter, the sampler and the resource read their own
// variables.
type settings struct {
	on       bool
	protocol string
	queue    int
	// secrets are values of headers, and the password of the endpoint.
	secrets []string
}

func read(getenv func(string) string) (settings, error) {
	get := func(name string) string {
		return cmp.Or(getenv("OTEL_EXPORTER_OTLP_TRACES_"+name), getenv("OTEL_EXPORTER_OTLP_"+name))
	}
	s := settings{protocol: cmp.Or(get("PROTOCOL"), "grpc"), queue: defaultQueue}
	exporter := strings.TrimSpace(getenv("OTEL_TRACES_EXPORTER"))
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") || exporter == "none" || get("ENDPOINT") == "" && exporter == "" {
		return s, nil
	}
	switch {
	case exporter != "" && exporter != "otlp":
		return s, fmt.Errorf("OTEL_TRACES_EXPORTER is %q; it can be otlp or none", exporter)
	case s.protocol != "grpc" && s.protocol != "http/protobuf":
		return s, fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL is %q; it can be grpc or http/protobuf", s.protocol)
	}
	if n, err := strconv.Atoi(getenv("OTEL_BSP_MAX_QUEUE_SIZE")); err == nil && n > 0 {
		s.queue = min(n, maxQueue)
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"} {
		for pair := range strings.SplitSeq(getenv(name), ",") {
			_, value, _ := strings.Cut(pair, "=")
			s.secrets = append(s.secrets, forms(value)...)
		}
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
		if u, err := url.Parse(getenv(name)); err == nil {
			password, _ := u.User.Password()
			s.secrets = append(s.secrets, forms(password)...)
		}
	}
	s.on = true
	return s, nil
}

// forms are a secret as it is written and as it is sent, with the parts between its spaces: "Bearer TOKEN".
func forms(value string) []string {
	value = strings.TrimSpace(value)
	all := append([]string{value}, strings.Fields(value)...)
	if sent, err := url.PathUnescape(value); err == nil {
		all = append(append(all, sent), strings.Fields(sent)...)
	}
	var long []string
	for _, one := range all {
		if len(one) >= leastSecret {
			long = append(long, one)
		}
	}
	return long
}

// leastSecret is the length below which a value is a word and no secret. Words would make texts unreadable.
const leastSecret = 4

func (s settings) scrub(text string) string { return secret.Scrub(text, s.secrets) }

// exporter makes the exporter. It makes no connection yet.
func (s settings) exporter(ctx context.Context) (*otlptrace.Exporter, error) {
	if s.protocol == "grpc" {
		return otlptracegrpc.New(ctx)
	}
	return otlptracehttp.New(ctx)
}

// self says who makes the spans. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES come last, and so count.
func self(ctx context.Context, version string) *resource.Resource {
	// What could not be found out is left out.
	r, _ := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "pinfoldd"), attribute.String("service.version", version)),
		resource.WithHost(), resource.WithTelemetrySDK(), resource.WithFromEnv())
	return r
}

// complaints logs the exporter's errors, not too often.
type complaints struct {
	log     *slog.Logger
	secrets []string

	mu   sync.Mutex
	last time.Time
	more int
}

// Handle implements otel.ErrorHandler.
func (c *complaints) Handle(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.last.IsZero() && time.Since(c.last) < complaintInterval {
		c.more++
		return
	}
	c.log.Warn("traces are not exported", "error", secret.Scrub(err.Error(), c.secrets), "repeated", c.more)
	c.last, c.more = time.Now(), 0
}
