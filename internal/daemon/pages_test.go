package daemon

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pinfold-run/pinfold/internal/admin"
	"github.com/pinfold-run/pinfold/internal/config"
)

// page asks for a page at a socket or an address.
func page(t *testing.T, network, address, path string) (int, string) {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return net.Dial(network, address) },
	}}
	answer, err := client.Get("http://pinfoldd" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

func TestTheAdminSocketIsForRootAndThereBeforeTheRecovery(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	c := &config.Config{AdminSocket: path}
	p := startPages(t.Context(), c, newHealth(), discard())
	info, err := os.Stat(path)
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	if code, text := page(t, "unix", path, "/healthz"); code != http.StatusServiceUnavailable || !strings.Contains(text, "daemon: the daemon starts") {
		t.Errorf("%d %q", code, text)
	}
	if code, text := page(t, "unix", path, "/debug/pprof/goroutine?debug=2"); code != http.StatusOK || !strings.Contains(text, "goroutine") {
		t.Errorf("%d %q", code, text)
	}
	p.close()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("after the end: %v", err)
	}
}

func TestAnAddressOfMetricsThatIsInUseIsTriedAgainAndEndsWithTheDaemon(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	p := &pages{Pages: admin.NewPages(newHealth().conditions, discard()), log: discard()}
	ctx, cancel := context.WithCancel(t.Context())
	p.closed = append(p.closed, cancel)
	server := p.MetricsServer()
	if err := p.listenForMetrics(ctx, server, taken.Addr().String()); err == nil {
		t.Error("the address is in use")
	}
	address := taken.Addr().String()
	taken.Close()
	ended := make(chan error, 1)
	p.HandleMetrics(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "m 1\n") }))
	go func() { ended <- p.listenForMetrics(ctx, server, address) }()
	for deadline := time.Now().Add(10 * time.Second); ; {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if code, text := page(t, "tcp", address, "/metrics"); code != http.StatusOK || text != "m 1\n" {
		t.Errorf("%d %q", code, text)
	}
	if code, _ := page(t, "tcp", address, "/debug/pprof/"); code != http.StatusNotFound {
		t.Errorf("profiles: %d", code)
	}
	server.Close()
	p.close()
	<-ended
}
