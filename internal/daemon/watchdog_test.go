package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// runWatchdog runs a watchdog for an hour that does not pass by itself, and says how often it was
// fed and whether it gave up. Each look is kept from running for the time starved.
func runWatchdog(t *testing.T, starved time.Duration, w *watchdog) (fed int, dead bool) {
	t.Helper()
	w.log, w.tick, w.stuck = slog.New(slog.DiscardHandler), 10*time.Second, 12
	w.alive = func() error { fed++; time.Sleep(starved); return nil }
	w.dead = func(string) error { dead = true; return nil }
	if w.loaded == nil {
		w.loaded = func() bool { return false }
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	w.run(ctx)
	return fed, dead
}

func TestTheWatchdogIsFedWhileTheSocketAnswers(t *testing.T) {
	for name, ask := range map[string]func(context.Context) error{
		"at once": func(context.Context) error { return nil },
		"slowly": func(ctx context.Context) error {
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Second):
			}
			return nil
		},
		"no place": func(context.Context) error { return errors.New("too many connections") },
	} {
		synctest.Test(t, func(t *testing.T) {
			fed, dead := runWatchdog(t, 0, &watchdog{ask: ask})
			if fed < 355 || dead {
				t.Errorf("%s: fed %d times, dead %t", name, fed, dead)
			}
		})
	}
}

func TestADaemonThatDoesNotAnswerItselfIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		began := time.Now()
		fed, dead := runWatchdog(t, 0, &watchdog{ask: func(ctx context.Context) error {
			if asked++; asked > 6 {
				<-ctx.Done()
			}
			return nil
		}})
		if took := time.Since(began); !dead || fed < 10 || took < 3*time.Minute || took > 4*time.Minute {
			t.Errorf("dead %t after %s, fed %d times", dead, took, fed)
		}
	})
}

// A node that thrashes, and one whose clock was stopped, are no fault of the daemon.
func TestTimeInWhichTheNodeKeepsTheDaemonWaitingDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := func(ctx context.Context) error { <-ctx.Done(); return nil }
		if fed, dead := runWatchdog(t, 0, &watchdog{ask: hang, loaded: func() bool { return true }}); dead || fed < 355 {
			t.Errorf("memory is short: fed %d times, dead %t", fed, dead)
		}
		// Each look is late: the loop itself is kept from running.
		if fed, dead := runWatchdog(t, 25*time.Second, &watchdog{ask: hang}); dead || fed < 100 {
			t.Errorf("the processor is short: fed %d times, dead %t", fed, dead)
		}
	})
}

// versions serves Version; hang makes it hang.
type versions struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	hang atomic.Bool
}

// Version implements CRI.
func (v *versions) Version(ctx context.Context, _ *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	if v.hang.Load() {
		<-ctx.Done()
	}
	return &runtimeapi.VersionResponse{}, nil
}

func TestTheQuestionToTheOwnSocketWaitsForAServerThatHangsAndForNothingElse(t *testing.T) {
	dir := t.TempDir()
	listen := func(name string) (net.Listener, string) {
		t.Helper()
		path := filepath.Join(dir, name)
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l, path
	}
	l, path := listen("serves")
	server, service := grpc.NewServer(), &versions{}
	runtimeapi.RegisterRuntimeServiceServer(server, service)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	if err := askSocket(t.Context(), path); err != nil {
		t.Errorf("it serves: %v", err)
	}
	hangs := func(path string) bool {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		err := askSocket(ctx, path)
		// The server knows the deadline, too, and may tell it first.
		return ctx.Err() != nil || status.Code(err) == codes.DeadlineExceeded
	}
	service.hang.Store(true)
	if !hangs(path) {
		t.Error("a call that hangs is an answer")
	}
	if _, silent := listen("silent"); !hangs(silent) {
		t.Error("a server that takes no connection is an answer")
	}
	if hangs(filepath.Join(dir, "none")) {
		t.Error("it waits for a socket that is not there")
	}
	full, closes := listen("full")
	go func() {
		for {
			c, err := full.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	if hangs(closes) {
		t.Error("a connection that is refused, because there are too many, is no answer")
	}
}
