// Package reaper is pinder's outer process. It must never fail, so it does little:
//
//   - it holds the listening socket, the lock, and duplicates of all descriptors that the supervisor told it to keep;
//   - it starts the supervisor, and starts it again when it ends or does not answer;
//   - it is a sub-reaper: the children of a dead supervisor become its own, and stay zombies until the next supervisor
//     has recorded how they ended.
//
// It runs no OCI runtime, opens no file of a container, and knows nothing of what it keeps.
package reaper

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
	"github.com/pinfold-run/pinfold/internal/pinder/link"
	"github.com/pinfold-run/pinfold/internal/pinder/ownlog"
)

const (
	socketName = "pinder.sock"
	lockName   = "pinder.lock"

	minBackoff = 20 * time.Millisecond
	maxBackoff = time.Second
	// After a supervisor that lived this long, the next starts at once.
	goodLife = 200 * time.Millisecond
)

// kept is one object's duplicates.
type kept struct {
	kinds string // comma separated, one for each descriptor
	fds   []int
}

// reaper is the outer process. It allocates memory only for what it is told to keep.
type reaper struct {
	dir    string
	listen int
	lock   int

	// Written by run's goroutine alone, and under mu.
	pid  int // the supervisor, 0 when there is none; our child, so the pid cannot be reused
	link *link.Conn

	missed atomic.Int32
	quit   atomic.Bool

	// mu guards store. It may be held while a message waits for the supervisor
	// to read, so run's goroutine takes it only when that one is dead.
	mu    sync.Mutex
	store map[string]*kept
}

// Run runs the outer process of a new pinder for a state directory. It returns an error before it starts anything, or
// nil after a shutdown. If the directory has a pinder, the error is ErrRunning.
func Run(dir string) error {
	r := &reaper{dir: dir, store: map[string]*kept{}}
	var err error
	if r.lock, err = takeLock(dir); err != nil {
		return err
	}
	if r.listen, err = listenSocket(filepath.Join(dir, socketName)); err != nil {
		return err
	}
	return r.run()
}

// ErrRunning says that the state directory has a living pinder.
var ErrRunning = errors.New("a pinder is running for this state directory")

func takeLock(dir string) (int, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return -1, fmt.Errorf("state directory: %w", err)
	}
	path := filepath.Join(dir, lockName)
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = unix.Close(fd)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return -1, fmt.Errorf("lock %s: %w", path, ErrRunning)
		}
		return -1, fmt.Errorf("lock %s: %w", path, err)
	}
	return fd, nil
}

// listenSocket is called with the lock held, so no process listens on a socket that is there.
func listenSocket(path string) (int, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return -1, fmt.Errorf("remove stale socket: %w", err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	// The mode of the socket's file is the mode of the socket's inode before bind.
	if err := unix.Fchmod(fd, 0o600); err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
		if err == nil {
			err = unix.Chmod(path, 0o600)
		}
		if err == nil {
			return fd, nil
		}
		_ = unix.Close(fd)
		return -1, fmt.Errorf("bind %s: %w", path, err)
	}
	_ = unix.Close(fd)
	return -1, fmt.Errorf("bind %s: %w", path, err)
}

// run ends only after a shutdown. Until then there is a supervisor, or one is about to be started.
func (r *reaper) run() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become sub-reaper: %w", err)
	}
	// listen again after a change of process: it renews what SO_PEERCRED and
	// SO_PEERPIDFD tell a client about this socket.
	if err := unix.Listen(r.listen, 128); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	// The signals are caught, not ignored: containers would inherit that.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGPIPE)
	sigs := make(chan os.Signal, 4)
	signal.Notify(sigs, unix.SIGCHLD, unix.SIGTERM)
	backoff := minBackoff
	for {
		born := time.Now()
		err := r.generation(sigs)
		if r.quit.Load() {
			_ = unix.Unlink(filepath.Join(r.dir, socketName))
			return nil
		}
		if time.Since(born) > goodLife {
			backoff = minBackoff
			continue
		}
		ownlog.Printf("supervisor ended after %v (%v), next in %v", time.Since(born).Round(time.Millisecond), err, backoff)
		time.Sleep(backoff)
		backoff = min(2*backoff, maxBackoff)
	}
}

// generation starts one supervisor and returns when that has ended.
func (r *reaper) generation(sigs <-chan os.Signal) error {
	if r.pid == 0 {
		if err := r.spawn(); err != nil {
			return err
		}
	}
	served := make(chan struct{})
	go func() {
		r.serve()
		close(served)
	}()
	ticker := time.NewTicker(link.Tick)
	defer ticker.Stop()
	for !r.reapSupervisor() {
		r.reportOrphan()
		select {
		case s := <-sigs:
			if s == unix.SIGTERM {
				r.terminate()
			}
		case <-ticker.C:
			r.watch()
		}
	}
	// What the dead supervisor has asked for is done before the next one starts.
	<-served
	r.link.Close()
	r.link = nil
	return nil
}

// reapSupervisor says whether the supervisor is gone.
func (r *reaper) reapSupervisor() bool {
	pid, ws, err := proc.Reap(unix.P_PID, r.pid)
	if err == nil && pid == 0 {
		return false
	}
	if !r.quit.Load() {
		ownlog.Printf("supervisor %d ended: code %d status %d (%v)", r.pid, ws.Code, ws.Status, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pid = 0
	return true
}

// reportOrphan tells the supervisor of one zombie of ours. It stays a zombie until the supervisor asks for it: nothing
// can lose the exit code of a zombie.
func (r *reaper) reportOrphan() {
	pid, _, err := proc.Peek(unix.P_ALL, 0)
	if err == nil && pid != 0 && pid != r.pid {
		_ = r.link.Send(link.Message{Op: link.OpOrphan, PID: int32(pid)}, false)
	}
}

// watch counts ticks, not time: after a pause of the whole machine or cgroup, only one tick is due, and the supervisor
// is not killed for the pause.
func (r *reaper) watch() {
	if r.missed.Add(1) > link.MaxMissed {
		ownlog.Printf("supervisor %d does not answer: killing it", r.pid)
		_ = unix.Kill(r.pid, unix.SIGKILL)
		return
	}
	_ = r.link.Send(link.Message{Op: link.OpPing}, false)
}

// terminate ends pinder on SIGTERM, but only if it has no containers and execs.
func (r *reaper) terminate() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.store) > 0 {
		ownlog.Printf("SIGTERM ignored: %d containers and execs depend on pinder", len(r.store))
		return
	}
	r.quit.Store(true)
	_ = unix.Kill(r.pid, unix.SIGKILL)
}

// serve answers one supervisor until it is gone.
func (r *reaper) serve() {
	for {
		m, err := r.link.Recv()
		if err != nil {
			return
		}
		r.mu.Lock()
		r.handle(m)
		r.mu.Unlock()
	}
}

func (r *reaper) handle(m link.Message) {
	switch m.Op {
	case link.OpKeep:
		if m.Truncated { // what it has stays
			descriptor.CloseAll(m.FDs)
			r.link.Reply(m, unix.EMFILE)
			return
		}
		key, kinds, _ := link.SplitItem(m.Text)
		r.drop(key)
		r.store[key] = &kept{kinds: kinds, fds: m.FDs}
		r.link.Reply(m, 0)
	case link.OpDrop:
		r.drop(m.Text)
		r.link.Reply(m, 0)
	case link.OpRecall:
		for key, k := range r.store {
			_ = r.link.Send(link.Message{Op: link.OpItem, Seq: m.Seq, Text: link.JoinItem(key, k.kinds), FDs: k.fds}, true)
		}
		r.link.Reply(m, 0)
	case link.OpPeek, link.OpReap:
		r.answerWait(m)
	case link.OpPong:
		r.missed.Store(0)
	case link.OpExec:
		err := r.handOver(m.Text, m.Seq)
		ownlog.Printf("upgrade to %s: %v", m.Text, err)
		r.link.Reply(m, errnoOf(err))
	case link.OpQuit:
		if len(r.store) > 0 {
			r.link.Reply(m, unix.EBUSY)
			return
		}
		r.quit.Store(true)
		r.link.Reply(m, 0)
	default:
		for _, fd := range m.FDs {
			_ = unix.Close(fd)
		}
		r.link.Reply(m, unix.ENOSYS)
	}
}

func (r *reaper) answerWait(m link.Message) {
	f := proc.Peek
	if m.Op == link.OpReap {
		f = proc.Reap
	}
	if int(m.PID) == r.pid || m.PID <= 0 {
		r.link.Reply(m, unix.EINVAL)
		return
	}
	pid, ws, err := f(unix.P_PID, int(m.PID))
	_ = r.link.Send(link.Message{
		Op: link.OpReply, Seq: m.Seq, PID: int32(pid),
		Code: ws.Code, Status: ws.Status, Errno: int32(errnoOf(err)),
	}, true)
	if m.Op == link.OpReap {
		r.reportOrphan()
	}
}

func (r *reaper) drop(key string) {
	if k := r.store[key]; k != nil {
		for _, fd := range k.fds {
			_ = unix.Close(fd)
		}
		delete(r.store, key)
	}
}

func errnoOf(err error) unix.Errno {
	var e unix.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e
	default:
		return unix.EIO
	}
}
