package client

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// duplicates are the daemon's copies of one object's descriptors. They are only
// held and given back, never used.
type duplicates struct {
	kinds []string
	fds   []int
	round int // of synchronisation, in which they came
}

func (d duplicates) close() { closeAll(d.fds) }

// store has the duplicates of all objects.
type store struct {
	log   *slog.Logger
	mu    sync.Mutex
	of    map[string]duplicates // by key
	round int                   // of synchronisation
}

// begin begins a round of synchronisation.
func (st *store) begin() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.round++
}

// keys names all objects.
func (st *store) keys() []string {
	st.mu.Lock()
	defer st.mu.Unlock()
	keys := []string{}
	for key := range st.of {
		keys = append(keys, key)
	}
	return keys
}

// take returns what is held under key, which is then the caller's.
func (st *store) take(key string) duplicates {
	st.mu.Lock()
	defer st.mu.Unlock()
	d := st.of[key]
	delete(st.of, key)
	return d
}

// close closes everything.
func (st *store) close() {
	for _, key := range st.keys() {
		st.take(key).close()
	}
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// event handles a message that answers no request.
func (w *connector) event(m wire.Message) {
	c := w.client
	switch m.Type {
	case wire.TypeKeep:
		var k wire.Keep
		if m.Decode(&k) != nil || len(k.Kinds) != len(m.FDs) {
			closeAll(m.FDs)
			c.o.Log.Warn("no descriptors are left to hold duplicates of an object's; pinder has its own", "object", k.Key,
				"needed", len(k.Kinds), "came", len(m.FDs))
			return
		}
		c.store.hold(k.Key, duplicates{kinds: k.Kinds, fds: m.FDs})
	case wire.TypeDrop:
		closeAll(m.FDs)
		var k wire.Keys
		if m.Decode(&k) == nil {
			for _, key := range k.Keys {
				c.store.hold(key, duplicates{})
			}
		}
	case wire.TypeExit:
		closeAll(m.FDs)
		var e wire.Exit
		if m.Decode(&e) == nil {
			c.execs.exited(e)
		}
	case wire.TypeRan:
		closeAll(m.FDs)
		var r wire.Ran
		if m.Decode(&r) == nil {
			c.asked.ran(c.o.Calls, r)
		}
	default: // of a later release
		closeAll(m.FDs)
	}
}

// hold replaces what is held under key; empty duplicates drop it.
func (st *store) hold(key string, d duplicates) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.of[key].close()
	delete(st.of, key)
	if len(d.fds) == 0 {
		return
	}
	if most := mostHeld(); st.count()+len(d.fds) > most {
		d.close()
		st.log.Warn("no room for duplicates of an object's descriptors; pinder has its own", "object", key, "most", most)
		return
	}
	d.round = st.round
	st.of[key] = d
}

// Held is how many containers and execs the client holds duplicates of, for reports.
func (c *Client) Held() int {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	return len(c.store.of)
}

// count is how many descriptors are held. The caller holds mu.
func (st *store) count() int {
	n := 0
	for _, d := range st.of {
		n += len(d.fds)
	}
	return n
}

// mostHeld is half of the files that this process may have open. The other half is for the daemon's own work.
func mostHeld() int {
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) != nil {
		return 512
	}
	return int(min(r.Cur, 1<<30)) / 2
}

// closeStale closes duplicates that this round of synchronisation did not bring: their objects were removed while
// there was no connection.
func (st *store) closeStale() {
	st.mu.Lock()
	defer st.mu.Unlock()
	for key, d := range st.of {
		if d.round != st.round {
			d.close()
			delete(st.of, key)
		}
	}
}

// exchange gives a pinder back what it lost, takes duplicates of what it has,
// and learns of all exits.
func (w *connector) exchange(s *connection) error {
	c := w.client
	ctx, cancel := context.WithTimeout(c.ctx, helloTimeout)
	defer cancel()
	if err := c.connector.giveBack(ctx, s); err != nil {
		return err
	}
	c.store.begin()
	m, err := s.ask(ctx, wire.TypeSync, nil, nil)
	if err != nil {
		return err
	}
	closeAll(m.FDs)
	c.store.closeStale()
	var list wire.List
	if err := m.Decode(&list); err != nil {
		return err
	}
	known := map[string]bool{}
	for i := range list.Containers {
		ct := &list.Containers[i]
		if ct.ExecID != "" {
			known[ct.ID+"/"+ct.ExecID] = true
			c.execs.endForeign(ct)
		}
		if ct.Exit != nil {
			c.execs.exited(*ct.Exit)
		}
	}
	c.execs.endLost(known)
	return nil
}

// giveBack gives pinder the objects that it does not have. An older pinder that cannot take them gets none.
func (w *connector) giveBack(ctx context.Context, s *connection) error {
	c := w.client
	if !slices.Contains(s.hello.Capabilities, "restore") {
		return nil
	}
	m, err := s.ask(ctx, wire.TypeOffer, wire.Keys{Keys: c.store.keys()}, nil)
	if err != nil {
		return err
	}
	closeAll(m.FDs)
	var want wire.Keys
	if err := m.Decode(&want); err != nil {
		return err
	}
	for _, key := range want.Keys {
		d := c.store.take(key)
		if len(d.fds) == 0 {
			continue
		}
		_, err := s.ask(ctx, wire.TypeRestore, wire.Keep{Key: key, Kinds: d.kinds}, d.fds)
		switch {
		case errors.Is(err, errdefs.ErrResourceExhausted):
			c.store.hold(key, d)
			c.o.Log.Warn("pinder has no descriptors left to take back an object", "object", key, "error", err)
		case errors.Is(err, errLost) || errors.Is(err, errdefs.ErrUnavailable) || ctx.Err() != nil:
			// This pinder is about to end. The next one gets it.
			c.store.hold(key, d)
			return errLost
		case err != nil: // deleted meanwhile, or of a layout it does not know
			d.close()
			c.o.Log.Info("pinder does not take back an object", "object", key, "error", err)
		default:
			c.store.hold(key, d) // until pinder's sync brings it again: it may be killed before that
			c.o.Log.Info("gave an object back to pinder", "object", key)
		}
	}
	return nil
}
