package pinder

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
)

// reaperTimeout bounds one request to the reaper. A reaper that takes longer is
// stopped or wedged; the requester fails, and the watch replaces the reaper.
const reaperTimeout = 10 * time.Second

var errReaper = errors.New("the reaper does not answer")

// reaperLink is the supervisor's end of the socket pair.
type reaperLink struct {
	link *link

	mu      sync.Mutex
	seq     uint32
	waiting map[uint32]chan linkMsg

	pinged atomic.Bool // since the watch last looked
}

func newReaperLink(fd int) (*reaperLink, error) {
	l, err := newLink(fd)
	if err != nil {
		return nil, err
	}
	return &reaperLink{link: l, waiting: map[uint32]chan linkMsg{}}, nil
}

// serve reads until the reaper is gone. pong is called to answer a ping, orphan
// for each reported zombie, item for each recalled object, all from here.
func (r *reaperLink) serve(pong func(), orphan func(pid int), item func(key string, kinds []string, fds []int)) {
	defer r.hangUp()
	for {
		m, err := r.link.recv()
		if err != nil {
			return
		}
		switch m.op {
		case opPing:
			r.pinged.Store(true)
			go pong()
		case opOrphan:
			orphan(int(m.pid))
		case opItem:
			key, kinds, _ := splitItem(m.text)
			item(key, splitKinds(kinds), m.fds)
		case opReply:
			r.mu.Lock()
			ch := r.waiting[m.seq]
			delete(r.waiting, m.seq)
			r.mu.Unlock()
			if ch != nil {
				ch <- m
			}
		default:
			descriptor.CloseAll(m.fds)
		}
	}
}

// gone reports whether the reaper has ended. What follows is takeOver.
func (r *reaperLink) gone() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.waiting == nil
}

// hangUp fails all requests without an answer, and all to come.
func (r *reaperLink) hangUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ch := range r.waiting {
		close(ch)
	}
	r.waiting = nil
}

// pong says that the supervisor works.
func (r *reaperLink) pong() { _ = r.link.send(linkMsg{op: opPong}, false) }

func (r *reaperLink) ask(m linkMsg) (linkMsg, error) {
	ch := make(chan linkMsg, 1)
	r.mu.Lock()
	if r.waiting == nil {
		r.mu.Unlock()
		return linkMsg{}, errReaper
	}
	r.seq++
	m.seq = r.seq
	r.waiting[m.seq] = ch
	r.mu.Unlock()
	if err := r.link.send(m, true); err != nil {
		r.hangUp()
		return linkMsg{}, fmt.Errorf("%w: %w", errReaper, err)
	}
	timer := time.NewTimer(reaperTimeout)
	defer timer.Stop()
	select {
	case got, ok := <-ch:
		if !ok {
			return linkMsg{}, errReaper
		}
		if got.errno != 0 {
			return got, unix.Errno(got.errno)
		}
		return got, nil
	case <-timer.C:
		r.mu.Lock()
		delete(r.waiting, m.seq)
		r.mu.Unlock()
		return linkMsg{}, errReaper
	}
}

func (r *reaperLink) keep(key string, kinds []string, fds []int) error {
	_, err := r.ask(linkMsg{op: opKeep, text: joinItem(key, strings.Join(kinds, ",")), fds: fds})
	return err
}

func (r *reaperLink) drop(key string) error {
	_, err := r.ask(linkMsg{op: opDrop, text: key})
	return err
}

// peek looks at a child of the reaper's; ECHILD when it has no such child.
func (r *reaperLink) peek(pid int) (got int, ws proc.Exit, err error) {
	m, err := r.ask(linkMsg{op: opPeek, pid: int32(pid)})
	return int(m.pid), proc.Exit{Code: m.code, Status: m.status}, err
}

func (r *reaperLink) reap(pid int) error {
	_, err := r.ask(linkMsg{op: opReap, pid: int32(pid)})
	return err
}
