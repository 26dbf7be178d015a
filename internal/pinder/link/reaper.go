package link

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

// Timeout bounds one request to the reaper. A reaper that takes longer is
// stopped or wedged; the requester fails, and the watch replaces the reaper.
const Timeout = 10 * time.Second

var errReaper = errors.New("the reaper does not answer")

// Reaper is the supervisor's end of the socket pair: what it asks the reaper. Any goroutine may use it.
type Reaper struct {
	link *Conn

	mu      sync.Mutex
	seq     uint32
	waiting map[uint32]chan Message

	heard atomic.Bool // a ping, since the watch last looked
}

// NewReaper takes ownership of fd.
func NewReaper(fd int) (*Reaper, error) {
	l, err := NewConn(fd)
	if err != nil {
		return nil, err
	}
	return &Reaper{link: l, waiting: map[uint32]chan Message{}}, nil
}

// Serve reads until the reaper is gone. pong is called to answer a ping, orphan
// for each reported zombie, item for each recalled object, all from here.
func (r *Reaper) Serve(pong func(), orphan func(pid int), item func(key string, kinds []string, fds []int)) {
	defer r.hangUp()
	for {
		m, err := r.link.Recv()
		if err != nil {
			return
		}
		switch m.Op {
		case OpPing:
			r.heard.Store(true)
			go pong()
		case OpOrphan:
			orphan(int(m.PID))
		case OpItem:
			key, kinds, _ := SplitItem(m.Text)
			item(key, splitKinds(kinds), m.FDs)
		case OpReply:
			r.mu.Lock()
			ch := r.waiting[m.Seq]
			delete(r.waiting, m.Seq)
			r.mu.Unlock()
			if ch != nil {
				ch <- m
			}
		default:
			descriptor.CloseAll(m.FDs)
		}
	}
}

// Gone reports whether the reaper has ended. The supervisor then takes its place.
func (r *Reaper) Gone() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.waiting == nil
}

// hangUp fails all requests without an answer, and all to come.
func (r *Reaper) hangUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ch := range r.waiting {
		close(ch)
	}
	r.waiting = nil
}

// Pong says that the supervisor works.
func (r *Reaper) Pong() { _ = r.link.Send(Message{Op: OpPong}, false) }

func (r *Reaper) ask(m Message) (Message, error) {
	ch := make(chan Message, 1)
	r.mu.Lock()
	if r.waiting == nil {
		r.mu.Unlock()
		return Message{}, errReaper
	}
	r.seq++
	m.Seq = r.seq
	r.waiting[m.Seq] = ch
	r.mu.Unlock()
	if err := r.link.Send(m, true); err != nil {
		r.hangUp()
		return Message{}, fmt.Errorf("%w: %w", errReaper, err)
	}
	timer := time.NewTimer(Timeout)
	defer timer.Stop()
	select {
	case got, ok := <-ch:
		if !ok {
			return Message{}, errReaper
		}
		if got.Errno != 0 {
			return got, unix.Errno(got.Errno)
		}
		return got, nil
	case <-timer.C:
		r.mu.Lock()
		delete(r.waiting, m.Seq)
		r.mu.Unlock()
		return Message{}, errReaper
	}
}

// Pinged reports whether the reaper has sent a ping since the last call.
func (r *Reaper) Pinged() bool { return r.heard.Swap(false) }

// Recall asks for everything that the reaper holds. It returns after the last object has come.
func (r *Reaper) Recall() error {
	_, err := r.ask(Message{Op: OpRecall})
	return err
}

// Upgrade makes the reaper replace itself by another binary, which answers.
func (r *Reaper) Upgrade(binary string) error {
	_, err := r.ask(Message{Op: OpExec, Text: binary})
	return err
}

// Quit makes the reaper end when the supervisor does, unless it holds anything.
func (r *Reaper) Quit() error {
	_, err := r.ask(Message{Op: OpQuit})
	return err
}

// Keep makes the reaper hold duplicates of an object's descriptors, and returns when it has them. fds stay the caller's.
func (r *Reaper) Keep(key string, kinds []string, fds []int) error {
	_, err := r.ask(Message{Op: OpKeep, Text: JoinItem(key, strings.Join(kinds, ",")), FDs: fds})
	return err
}

// Drop makes the reaper close what it holds of an object.
func (r *Reaper) Drop(key string) error {
	_, err := r.ask(Message{Op: OpDrop, Text: key})
	return err
}

// Peek looks at a child of the reaper's; ECHILD when it has no such child.
func (r *Reaper) Peek(pid int) (got int, ws proc.Exit, err error) {
	m, err := r.ask(Message{Op: OpPeek, PID: int32(pid)})
	return int(m.PID), proc.Exit{Code: m.Code, Status: m.Status}, err
}

// Reap makes the reaper reap a child of its own.
func (r *Reaper) Reap(pid int) error {
	_, err := r.ask(Message{Op: OpReap, PID: int32(pid)})
	return err
}
