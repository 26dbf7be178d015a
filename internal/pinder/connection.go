package pinder

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
	"github.com/pinfold-run/pinfold/internal/pinder/ownlog"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

const (
	// queueSize is how many messages may wait for a daemon that does not read. Then it is disconnected; it
	// synchronises when it connects again. A command of an instant is six messages with two descriptors each; hundreds
	// may start and end while the daemon waits for a processor.
	queueSize = 2048
	// helloTimeout is how long a new connection may send nothing.
	helloTimeout = 10 * time.Second
	// syncing is for how many objects duplicates may wait for a daemon at once: each takes descriptors of ours.
	syncing = 8
)

// connection is one connection of a daemon (or of an operator's command).
type connection struct {
	sup   *supervisor
	conn  *wire.Conn
	queue chan *outgoing // messages own duplicates of their descriptors
	done  chan struct{}
	room  chan struct{} // full while syncing objects' duplicates wait

	mu    sync.Mutex
	ended bool // nothing more is queued

	synced bool // wants events; guarded by sup.mu
}

// outgoing is a message on its way.
type outgoing struct {
	wire.Message
	room bool   // gives its place in connection.room back
	lost func() // called, in a goroutine of its own, when it does not reach the daemon; may be nil
}

// drop closes what the message owns.
func (n *connection) drop(o *outgoing) {
	descriptor.CloseAll(o.FDs)
	n.giveRoom(o)
	if o.lost != nil {
		go o.lost()
	}
}

func (n *connection) giveRoom(o *outgoing) {
	if o.room {
		<-n.room
	}
}

func newConnection(s *supervisor, c *wire.Conn) *connection {
	return &connection{
		sup: s, conn: c, queue: make(chan *outgoing, queueSize),
		done: make(chan struct{}), room: make(chan struct{}, syncing),
	}
}

// run serves the connection until it ends.
func (n *connection) run() {
	defer n.end()
	if cred, err := n.conn.Peer(); err != nil || (cred.Uid != 0 && int(cred.Uid) != os.Geteuid()) {
		ownlog.Printf("connection refused: peer %+v, %v", cred, err)
		return
	}
	n.sup.mu.Lock()
	n.sup.connections[n] = struct{}{}
	n.sup.mu.Unlock()
	go n.write()
	n.send(0, wire.TypeHello, wire.Hello{
		Version: wire.Version, Capabilities: wire.Capabilities,
		Reaper: os.Getppid(), Supervisor: os.Getpid(),
	}, nil)
	_ = n.conn.SetDeadline(time.Now().Add(helloTimeout))
	m, err := n.conn.Read()
	if err != nil || m.Type != wire.TypeHello {
		ownlog.Printf("connection refused: no hello (%v)", err)
		return
	}
	descriptor.CloseAll(m.FDs)
	_ = n.conn.SetDeadline(time.Time{})
	for {
		m, err := n.conn.Read()
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, os.ErrClosed) {
				ownlog.Printf("connection: %v", err)
			}
			return
		}
		go n.handle(m)
	}
}

func (n *connection) end() {
	n.sup.mu.Lock()
	delete(n.sup.connections, n)
	n.sup.mu.Unlock()
	n.conn.Drain()
	_ = n.conn.Close()
	n.mu.Lock()
	n.ended = true // what is in the queue now, write drops
	n.mu.Unlock()
	close(n.done)
}

// write is the only writer of the connection.
func (n *connection) write() {
	for {
		select {
		case o := <-n.queue:
			if err := n.conn.Write(o.Message); err != nil {
				n.drop(o)
				_ = n.conn.Close()
				continue
			}
			descriptor.CloseAll(o.FDs)
			n.giveRoom(o)
		case <-n.done:
			for {
				select {
				case o := <-n.queue:
					n.drop(o)
				default:
					return
				}
			}
		}
	}
}

// send queues a message and takes ownership of fds. It never blocks: a full
// queue ends the connection.
func (n *connection) send(id uint64, typ string, body any, fds []int) {
	m, err := wire.New(id, typ, body)
	if err != nil {
		ownlog.Printf("%v", err)
		descriptor.CloseAll(fds)
		return
	}
	m.FDs = fds
	n.enqueue(&outgoing{Message: m})
}

func (n *connection) enqueue(o *outgoing) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ended {
		n.drop(o)
		return
	}
	select {
	case n.queue <- o:
	default:
		ownlog.Printf("a daemon does not read: disconnecting it")
		n.drop(o)
		_ = n.conn.Close()
	}
}

// broadcast sends an event to every synchronised daemon and takes ownership of fds.
func (s *supervisor) broadcast(typ string, body any, fds []int) {
	defer descriptor.CloseAll(fds)
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range s.connections {
		if !n.synced {
			continue
		}
		dups, err := descriptor.DuplicateAll(fds)
		if err != nil {
			ownlog.Printf("%v", err)
			_ = n.conn.Close() // it will synchronise again
			continue
		}
		n.send(0, typ, body, dups)
	}
}

// reply answers a request.
func (n *connection) reply(id uint64, body any, fds []int, err error) {
	if err == nil {
		n.send(id, wire.TypeReply, body, fds)
		return
	}
	descriptor.CloseAll(fds)
	var pe *wire.Error
	if !errors.As(err, &pe) {
		pe = &wire.Error{Code: wire.CodeInternal, Text: err.Error()}
	}
	if pe.Code == wire.CodeInternal && n.sup.reaper.Gone() {
		// The reaper's end is the likely reason. This process is about to become the reaper (takeOver): the daemon
		// loses the connection, and asks again.
		return
	}
	n.enqueue(&outgoing{Message: wire.Message{ID: id, Type: wire.TypeReply, Error: pe}})
}

// handle answers one request, in a goroutine of its own.
func (n *connection) handle(m wire.Message) {
	if m.ID == 0 {
		descriptor.CloseAll(m.FDs) // an event: there are none from the daemon in this release
		return
	}
	if m.Type == wire.TypeRestore {
		n.reply(m.ID, nil, nil, n.sup.keeper.GiveBack(m))
		return
	}
	descriptor.CloseAll(m.FDs)
	if m.Type == wire.TypeSync {
		n.sync(m.ID)
		return
	}
	if m.Type == wire.TypeExec {
		n.exec(m)
		return
	}
	body, fds, err := n.sup.dispatch(m)
	n.reply(m.ID, body, fds, err)
}

// exec answers a request for an exec. If the answer does not reach the daemon, the exec is killed: nothing else holds
// the other ends of its streams.
func (n *connection) exec(m wire.Message) {
	started, fds, abandon, err := n.sup.keeper.Exec(m)
	if err != nil {
		n.reply(m.ID, nil, nil, err)
		return
	}
	reply, err := wire.New(m.ID, wire.TypeReply, started)
	if err != nil {
		descriptor.CloseAll(fds)
		n.reply(m.ID, nil, nil, err)
		return
	}
	reply.FDs = fds
	n.enqueue(&outgoing{Message: reply, lost: abandon})
}

// sync sends everything that there is and makes the connection one that gets events. A change that happens meanwhile
// may be sent twice; the daemon can take an event twice.
func (n *connection) sync(id uint64) {
	n.sup.mu.Lock()
	n.synced = true
	n.sup.mu.Unlock()
	list := wire.List{Containers: []wire.Container{}}
	for _, o := range n.sup.keeper.Objects() {
		// Wait for room: this is many messages for one request.
		select {
		case n.room <- struct{}{}:
		case <-n.done:
			return
		}
		kinds, fds, err := o.Duplicates()
		if err != nil {
			<-n.room
			n.reply(id, nil, nil, err)
			return
		}
		m, err := wire.New(0, wire.TypeKeep, wire.Keep{Key: o.Key(), Kinds: kinds})
		if err != nil {
			<-n.room
			descriptor.CloseAll(fds)
			n.reply(id, nil, nil, err)
			return
		}
		m.FDs = fds
		n.enqueue(&outgoing{Message: m, room: true})
		c := o.State()
		if c.Phase == wire.PhaseDeleted {
			// Its drop may have been sent before our keep.
			n.send(0, wire.TypeDrop, wire.Keys{Keys: []string{o.Key()}}, nil)
			continue
		}
		list.Containers = append(list.Containers, c)
	}
	n.reply(id, list, nil, nil)
}

// dispatch runs a request. For an unknown one the error has a code of its own.
func (s *supervisor) dispatch(m wire.Message) (body any, fds []int, err error) {
	switch m.Type {
	case wire.TypePing:
		s.ping()
	case wire.TypeUpgrade:
		var r wire.Upgrade
		if err = m.Decode(&r); err == nil {
			err = s.upgrade(r)
		}
	case wire.TypeShutdown:
		err = s.shutdown()
	default:
		var known bool
		if body, fds, known, err = s.keeper.Request(m); !known {
			err = wire.Errorf(wire.CodeUnknownRequest, "request %q is unknown to this pinder", m.Type)
		}
	}
	return body, fds, err
}
