package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/pinfold-run/pinfold/internal/config"
	"github.com/pinfold-run/pinfold/internal/sdnotify"
)

// answerRetry is how often the daemon asks its socket until it answers for the first time.
const answerRetry = 100 * time.Millisecond

// Process is the process that the daemon runs in.
type Process struct {
	// Version is Pinfold's own.
	Version string
	// Files are the configuration files that were read.
	Files []string
	// Log is where the daemon logs. SetLog sets its level and format.
	Log    *slog.Logger
	SetLog func(*config.Config)
	// Reload has a value when the operator asks that the configuration is read again, by Load.
	Reload <-chan os.Signal
	Load   func() (*config.Effective, error)
	// Manager is the service manager.
	Manager *sdnotify.Notifier
}

// starts tells the service manager how far the start is.
func (p Process) starts(status string) { p.tell(p.Manager.Status("Starting: " + status)) }

func (p Process) tell(err error) {
	if err != nil {
		p.Log.Warn("the service manager is not reached", "error", err)
	}
}

// attend tells the service manager when the daemon serves, and from then on reads the configuration
// again when it is asked to, and feeds the watchdog. It returns when ctx ends.
func (p *parts) attend(ctx context.Context, c *config.Config, process Process) {
	if !p.answers(ctx, c.Socket) {
		return
	}
	r := &reloader{parts: p, running: c.Copy(), process: process}
	process.tell(process.Manager.Ready(r.status()))
	if every := process.Manager.Interval(); every > 0 {
		go p.newWatchdog(every, c.Socket, process.Manager).run(ctx)
	}
	r.run(ctx)
}

// answers waits until the socket answers a call of CRI.
func (p *parts) answers(ctx context.Context, path string) bool {
	for said := false; ; said = true {
		err := askSocket(ctx, path)
		if ctx.Err() != nil {
			return false
		}
		if err == nil {
			return true
		}
		if !said {
			p.Log.Warn("the socket does not answer yet", "socket", path, "error", err)
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(answerRetry):
		}
	}
}

// newWatchdog returns the watchdog for a manager that waits for that long.
func (p *parts) newWatchdog(every time.Duration, socket string, manager *sdnotify.Notifier) *watchdog {
	tick := min(every/20, watchdogTick)
	return &watchdog{
		log: p.Log, tick: tick, stuck: int(every / 2 / tick), loaded: memoryStalls, alive: manager.Alive, dead: manager.Dead,
		ask: func(ctx context.Context) error {
			p.Engine.Flights("") // they have locks; who holds one for ever is found
			p.Book.Sandboxes()
			return askSocket(ctx, socket)
		},
	}
}

// status is the text for the service manager.
func (r *reloader) status() string {
	return fmt.Sprintf("Serving CRI on %s", r.running.Socket)
}
