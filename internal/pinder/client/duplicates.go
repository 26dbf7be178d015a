package client

import (
	"context"
	"errors"
	"slices"

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

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// event handles a message that answers no request.
func (c *Client) event(m wire.Message) {
	switch m.Type {
	case wire.TypeKeep:
		var k wire.Keep
		if m.Decode(&k) != nil || len(k.Kinds) != len(m.FDs) {
			closeAll(m.FDs)
			c.o.Log.Warn("no descriptors are left to hold duplicates of an object's; pinder has its own", "object", k.Key,
				"needed", len(k.Kinds), "came", len(m.FDs))
			return
		}
		c.hold(k.Key, duplicates{kinds: k.Kinds, fds: m.FDs})
	case wire.TypeDrop:
		closeAll(m.FDs)
		var k wire.Keys
		if m.Decode(&k) == nil {
			for _, key := range k.Keys {
				c.hold(key, duplicates{})
			}
		}
	case wire.TypeExit:
		closeAll(m.FDs)
		var e wire.Exit
		if m.Decode(&e) == nil {
			c.exit(e)
		}
	default: // of a later release
		closeAll(m.FDs)
	}
}

// hold replaces what is held under key; empty duplicates drop it.
func (c *Client) hold(key string, d duplicates) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.duplicates[key].close()
	delete(c.duplicates, key)
	if len(d.fds) == 0 {
		return
	}
	if most := mostHeld(); c.held()+len(d.fds) > most {
		d.close()
		c.o.Log.Warn("no room for duplicates of an object's descriptors; pinder has its own", "object", key, "most", most)
		return
	}
	d.round = c.round
	c.duplicates[key] = d
}

// Held is how many containers and execs the client holds duplicates of, for reports.
func (c *Client) Held() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.duplicates)
}

// held is how many descriptors are held. The caller holds c.mu.
func (c *Client) held() int {
	n := 0
	for _, d := range c.duplicates {
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

// forgetStale closes duplicates that this round of synchronisation did not bring: their objects were removed while
// there was no connection.
func (c *Client) forgetStale() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, d := range c.duplicates {
		if d.round != c.round {
			d.close()
			delete(c.duplicates, key)
		}
	}
}

// exchange gives a pinder back what it lost, takes duplicates of what it has,
// and learns of all exits.
func (c *Client) exchange(s *connection) error {
	ctx, cancel := context.WithTimeout(c.ctx, helloTimeout)
	defer cancel()
	if err := c.giveBack(ctx, s); err != nil {
		return err
	}
	c.mu.Lock()
	c.round++
	c.mu.Unlock()
	m, err := s.ask(ctx, wire.TypeSync, nil, nil)
	if err != nil {
		return err
	}
	closeAll(m.FDs)
	c.forgetStale()
	var list wire.List
	if err := m.Decode(&list); err != nil {
		return err
	}
	known := map[string]bool{}
	for i := range list.Containers {
		ct := &list.Containers[i]
		if ct.ExecID != "" {
			known[ct.ID+"/"+ct.ExecID] = true
			c.endForeign(ct)
		}
		if ct.Exit != nil {
			c.exit(*ct.Exit)
		}
	}
	c.endLostExecs(known)
	return nil
}

// giveBack gives pinder the objects that it does not have. An older pinder that cannot take them gets none.
func (c *Client) giveBack(ctx context.Context, s *connection) error {
	if !slices.Contains(s.hello.Capabilities, "restore") {
		return nil
	}
	c.mu.Lock()
	offer := wire.Keys{Keys: []string{}}
	for key := range c.duplicates {
		offer.Keys = append(offer.Keys, key)
	}
	c.mu.Unlock()
	m, err := s.ask(ctx, wire.TypeOffer, offer, nil)
	if err != nil {
		return err
	}
	closeAll(m.FDs)
	var want wire.Keys
	if err := m.Decode(&want); err != nil {
		return err
	}
	for _, key := range want.Keys {
		c.mu.Lock()
		d := c.duplicates[key]
		delete(c.duplicates, key)
		c.mu.Unlock()
		if len(d.fds) == 0 {
			continue
		}
		_, err := s.ask(ctx, wire.TypeRestore, wire.Keep{Key: key, Kinds: d.kinds}, d.fds)
		switch {
		case errors.Is(err, errdefs.ErrResourceExhausted):
			c.hold(key, d)
			c.o.Log.Warn("pinder has no descriptors left to take back an object", "object", key, "error", err)
		case errors.Is(err, errLost) || errors.Is(err, errdefs.ErrUnavailable) || ctx.Err() != nil:
			// This pinder is about to end. The next one gets it.
			c.hold(key, d)
			return errLost
		case err != nil: // deleted meanwhile, or of a layout it does not know
			d.close()
			c.o.Log.Info("pinder does not take back an object", "object", key, "error", err)
		default:
			c.hold(key, d) // until pinder's sync brings it again: it may be killed before that
			c.o.Log.Info("gave an object back to pinder", "object", key)
		}
	}
	return nil
}
