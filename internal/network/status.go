package network

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/fsnotify/fsnotify"
)

const (
	// burst is the wait after a file event, because more may follow.
	burst = 100 * time.Millisecond
	// firstWait limits how long Status waits for the first check.
	firstWait = time.Second
)

// pace is how often and how long the network is asked for its status.
type pace struct {
	// poll limits the age of a status. The watch is only a hint: it misses changes, without an error, in a directory that
	// does not exist yet, on network file systems, and when the user has no inotify instances left.
	poll time.Duration
	// timeout limits the STATUS calls of one check.
	timeout time.Duration
}

var usualPace = pace{poll: 10 * time.Second, timeout: 10 * time.Second}

// status is the cached result of Status, and the goroutine that refreshes it.
type status struct {
	pace   pace
	cancel context.CancelFunc
	done   chan struct{} // closed when the goroutine has ended
	kick   chan struct{}
	first  chan struct{} // closed when the first check has ended

	mu      sync.Mutex
	err     error
	began   time.Time // of the check in progress
	checked bool
}

func (s *status) start(n *Network, p pace) {
	s.pace = p
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel, s.done = cancel, make(chan struct{})
	s.kick, s.first = make(chan struct{}, 1), make(chan struct{})
	s.began = time.Now()
	go func() {
		defer close(s.done)
		n.watch(ctx)
	}()
}

func (s *status) stop() {
	s.cancel()
	<-s.done
}

// recheck asks for a check soon. It never blocks.
func (s *status) recheck() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Status returns nil if the network is ready, otherwise an error that names the directory, the file or the plugin, and
// what is wrong. Its class is that of Plan's error. Status reads a cache: it runs no plugin and does not wait for one,
// except for up to a second in the first call after New. The cache is refreshed at most 10 seconds after the end of the
// last check, after changes of the directories, and after an Attach that failed.
func (n *Network) Status(ctx context.Context) error {
	s := &n.status
	select {
	case <-s.first:
	case <-ctx.Done():
	case <-time.After(firstWait):
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.checked {
		return classed(errdefs.ErrUnavailable, "network status is not known yet: the first check has been running for %.1f seconds", time.Since(s.began).Seconds())
	}
	return s.err
}

// watch checks at once, then on every hint and every pace.poll.
func (n *Network) watch(ctx context.Context) {
	w, err := fsnotify.NewWatcher()
	var events chan fsnotify.Event
	var errs chan error
	if err != nil {
		n.log.Info("network configuration is polled, not watched", "error", err)
	} else {
		defer func() { _ = w.Close() }()
		events, errs = w.Events, w.Errors
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-events:
			timer.Reset(burst)
		case <-errs: // an overflow: something changed
			timer.Reset(burst)
		case <-n.status.kick:
			timer.Reset(0)
		case <-timer.C:
			if w != nil {
				// Before the check, so that no change between is missed. A directory that is watched stays watched. One that
				// was removed and made again has to be watched again.
				n.watchDirs(w)
			}
			n.refresh(ctx)
			timer.Reset(n.status.pace.poll)
		}
	}
}

// watchDirs watches the directories of now, and no others.
func (n *Network) watchDirs(w *fsnotify.Watcher) {
	wanted := append([]string{n.confDir()}, n.binDirs()...)
	for _, dir := range w.WatchList() {
		if !slices.Contains(wanted, dir) {
			_ = w.Remove(dir)
		}
	}
	for _, dir := range wanted {
		_ = w.Add(dir)
	}
}

// refresh checks and stores the answer.
func (n *Network) refresh(ctx context.Context) {
	s := &n.status
	s.mu.Lock()
	s.began = time.Now()
	s.mu.Unlock()
	err := n.check(ctx)
	if ctx.Err() != nil {
		return // Close has cancelled it
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.checked && errText(s.err) != errText(err) {
		n.log.Info("network status changed", "ready", err == nil, "error", errText(err))
	}
	s.err = err
	if !s.checked {
		s.checked = true
		close(s.first)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// CheckDirs returns an error if the directories do not have a configuration and its plugins. It runs none of them.
func CheckDirs(conf string, bin []string) error {
	_, err := choose(conf, bin)
	return err
}

// choose returns the configuration that counts, if its plugins are there.
func choose(dir string, bin []string) (*configuration, error) {
	conf, err := load(dir)
	if err != nil {
		return nil, err
	}
	if err := requirePlugins(conf.list, bin); err != nil {
		return nil, fmt.Errorf("network configuration %s: %w", conf.file, err)
	}
	return conf, nil
}

// check returns an error if no sandbox could be attached now.
func (n *Network) check(ctx context.Context) error {
	conf, err := choose(n.confDir(), n.binDirs())
	if err != nil {
		return err
	}
	if !since11(conf.list) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, n.status.pace.timeout)
	defer cancel()
	group := "net-status-" + n.instance()
	// A daemon that was killed during a check has left the group.
	if err := n.killGroup(ctx, group); err != nil {
		return err
	}
	err = n.askPlugins(ctx, group, conf)
	return errors.Join(err, n.killGroup(context.WithoutCancel(ctx), group))
}

// askPlugins calls STATUS of each plugin until one is not ready. A plugin that does not know the verb is ready.
func (n *Network) askPlugins(ctx context.Context, group string, conf *configuration) error {
	for _, p := range conf.list.Plugins {
		r := &runner{net: n, group: group}
		c := call{verb: "STATUS", network: conf.list.Name}
		err := n.cni(r, n.binDirs()).GetStatusNetworkList(ctx, only(conf.list, p))
		if err != nil && !unsupported(err) {
			return fmt.Errorf("network configuration %s: %w", conf.file, c.wrap(err))
		}
	}
	return nil
}
