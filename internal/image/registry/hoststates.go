package registry

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// downTime is how long a host that could not be reached is asked last.
	downTime = time.Minute
	// maxPause is the longest wait of one request because a host asked for it. maxPauses limits all
	// waits of a pull. If a host asks for more, the pull fails; the kubelet decides when to try
	// again.
	maxPause  = 30 * time.Second
	maxPauses = 2 * time.Minute
	// maxRemembered is how many hosts are remembered.
	maxRemembered = 1000
)

// hostStates is what the store knows about registry hosts and their configuration, across pulls.
// The zero value is ready.
type hostStates struct {
	warnedOf sync.Map // path of a hosts.toml -> sum of the content that was warned about

	mu    sync.Mutex
	known map[string]*hostState // by scheme and host
}

// hostState is guarded by hostStates.mu.
type hostState struct {
	downUntil  time.Time
	pauseUntil time.Time
	slots      *semaphore.Weighted
	users      int // downloads that have a slot or wait for one
}

// at is called with mu held.
func (s *hostStates) at(key string) *hostState {
	if s.known == nil {
		s.known = map[string]*hostState{}
	}
	st := s.known[key]
	if st == nil {
		s.removeIdle()
		st = &hostState{}
		s.known[key] = st
	}
	return st
}

// removeIdle removes the servers that nothing needs to be known about, if there are too many. mu is
// held.
func (s *hostStates) removeIdle() {
	if len(s.known) < maxRemembered {
		return
	}
	now := time.Now()
	for key, st := range s.known {
		if st.users == 0 && now.After(st.downUntil) && now.After(st.pauseUntil) {
			delete(s.known, key)
		}
	}
}

func (s *hostStates) setDown(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at(key).downUntil = time.Now().Add(downTime)
}

// recover notes that a host answers.
func (s *hostStates) recover(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at(key).downUntil = time.Time{}
}

func (s *hostStates) isDown(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Before(s.at(key).downUntil)
}

// pause notes that a host asks for no requests for d.
func (s *hostStates) pause(key string, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.at(key)
	if until := time.Now().Add(d); until.After(st.pauseUntil) {
		st.pauseUntil = until
	}
}

// paused is how much longer a host asks for no requests.
func (s *hostStates) paused(key string) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Until(s.at(key).pauseUntil)
}

// slot waits until fewer than limit downloads from the host are in progress.
func (s *hostStates) slot(ctx context.Context, key string, limit int) (release func(), err error) {
	s.mu.Lock()
	st := s.at(key)
	if st.slots == nil {
		st.slots = semaphore.NewWeighted(int64(limit))
	}
	st.users++
	slots := st.slots
	s.mu.Unlock()
	leave := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		st.users--
	}
	if err := slots.Acquire(ctx, 1); err != nil {
		leave()
		return nil, err
	}
	return func() { slots.Release(1); leave() }, nil
}

// backOff is the pause after the n-th refusal, if the host does not name one: a second, two, four…
// Up to a half of it is random, so that many nodes do not come back at the same time.
func backOff(n int) time.Duration {
	d := time.Second << min(n, 4)
	return d/2 + rand.N(d/2)
}
