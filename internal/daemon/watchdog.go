package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// watchdogTick is how often the watchdog is fed, if the service manager allows that much.
	watchdogTick = 10 * time.Second
	// stalled is the share of time, in percent, in which all tasks of the node wait for memory, from
	// which on a slow answer is not the daemon's fault.
	stalled = 10
)

// watchdog tells the service manager that the daemon works, and when it does not: then the manager
// starts it again, and the pods keep running.
//
// A start cures a daemon that has blocked itself, and nothing else. So only that counts: a question
// to its own socket stays without an answer, while this loop runs on time. A node that is short of
// CPU or memory, or whose clock was stopped, makes the loop late too; then nothing counts, and the
// manager's own time limit is for a daemon that does not run at all. CNI plugins, OCI runtimes,
// pinder and registries are not asked: they may hang, and Status says so.
type watchdog struct {
	log *slog.Logger
	// tick is the time between two looks; stuck is how many looks in a row an answer may take.
	tick  time.Duration
	stuck int
	// ask returns when the daemon has answered, whatever the answer is.
	ask func(context.Context) error
	// loaded reports whether the node keeps its processes waiting.
	loaded func() bool
	alive  func() error
	dead   func(status string) error
}

// run watches until ctx ends. interval is the manager's.
func (w *watchdog) run(ctx context.Context) {
	answered := make(chan error, 1)
	asking, missing := false, 0
	ticker := time.NewTicker(w.tick)
	defer ticker.Stop()
	last := time.Now()
	for {
		if !asking {
			asking = true
			go func() { answered <- w.ask(ctx) }()
		}
		select {
		case <-ctx.Done():
			return
		case err := <-answered:
			asking, missing = false, 0
			if err != nil {
				w.log.Debug("the watchdog's question to the own socket", "error", err)
			}
			// The next question comes with the next tick.
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		case <-ticker.C:
			if w.onTime(time.Since(last)) && !w.loaded() {
				missing++
			}
		}
		last = time.Now()
		if missing > w.stuck {
			w.giveUp(time.Duration(missing) * w.tick)
			return
		}
		w.say(w.alive())
	}
}

// onTime reports whether a look comes when it should. One that comes at once makes up for one that
// was late.
func (w *watchdog) onTime(after time.Duration) bool { return after > w.tick/2 && after < 2*w.tick }

func (w *watchdog) giveUp(after time.Duration) {
	status := fmt.Sprintf("The daemon has not answered on its own socket for %s; it is started again", after)
	w.log.Error("the daemon does not answer on its own socket; the service manager is asked to start it again, and pods keep running", "silent_for", after)
	w.say(w.dead(status))
}

func (w *watchdog) say(err error) {
	if err != nil {
		w.log.Warn("the service manager is not reached", "error", err)
	}
}

// memoryStalls reports whether the processes of the node all wait for memory for much of the time
// (PSI, accounting/psi in the kernel's documentation).
func memoryStalls() bool {
	data, err := os.ReadFile("/proc/pressure/memory")
	if err != nil {
		return false
	}
	_, full, _ := strings.Cut(string(data), "full avg10=")
	var share float64
	if _, err := fmt.Sscanf(full, "%f", &share); err != nil {
		return false
	}
	return share >= stalled
}

// errOther is the error for a socket at the daemon's path that is another process's.
var errOther = errors.New("another process serves at this daemon's path")

// askSocket asks the daemon at the socket for its version, over a connection of its own. It has no
// time limit but ctx's. An error is an answer too: the connection was refused or ended.
func askSocket(ctx context.Context, path string) error {
	conn, err := grpc.NewClient(
		"passthrough:///pinfoldd",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(), // $HTTPS_PROXY is for pulls
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dialSelf(ctx, path) }),
		// A server that takes the connection and says nothing is waited for.
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: maxQuestion}),
	)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_, err = runtimeapi.NewRuntimeServiceClient(conn).Version(ctx, &runtimeapi.VersionRequest{})
	return err
}

// maxQuestion is longer than any watchdog waits.
const maxQuestion = 24 * time.Hour

func dialSelf(ctx context.Context, path string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if pid := peerPID(conn); pid != os.Getpid() {
		conn.Close()
		return nil, fmt.Errorf("pid %d: %w", pid, errOther)
	}
	return conn, nil
}
