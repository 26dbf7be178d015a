package image

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// sickTime is how long a host that was not to be reached is asked last.
	sickTime = time.Minute
	// maxPause is the longest that one request waits because a host said so, maxPauses what all waits of a pull
	// may take together. A host that wants more fails the pull, whose repetition is the kubelet's to time.
	maxPause  = 30 * time.Second
	maxPauses = 2 * time.Minute
	// maxRemembered bounds the hosts that are remembered.
	maxRemembered = 1000
)

// hostStates is what the store remembers of the hosts it asks and of their configuration, across pulls. The zero
// value is ready.
type hostStates struct {
	warnedOf sync.Map // path of a hosts.toml -> sum of the content that was warned of

	mu    sync.Mutex
	known map[string]*hostState // by scheme and host
}

// hostState is guarded by hostStates.mu.
type hostState struct {
	sickUntil  time.Time
	pauseUntil time.Time
	slots      *semaphore.Weighted
	users      int // downloads that have or want a slot
}

// at is called with mu held.
func (s *hostStates) at(key string) *hostState {
	if s.known == nil {
		s.known = map[string]*hostState{}
	}
	st := s.known[key]
	if st == nil {
		s.forget()
		st = &hostState{}
		s.known[key] = st
	}
	return st
}

// forget makes room, with mu held.
func (s *hostStates) forget() {
	if len(s.known) < maxRemembered {
		return
	}
	now := time.Now()
	for key, st := range s.known {
		if st.users == 0 && now.After(st.sickUntil) && now.After(st.pauseUntil) {
			delete(s.known, key)
		}
	}
}

func (s *hostStates) sicken(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at(key).sickUntil = time.Now().Add(sickTime)
}

// recover notes that a host answers.
func (s *hostStates) recover(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at(key).sickUntil = time.Time{}
}

func (s *hostStates) sick(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Before(s.at(key).sickUntil)
}

// pause notes that a host wants to be left alone for d.
func (s *hostStates) pause(key string, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.at(key)
	if until := time.Now().Add(d); until.After(st.pauseUntil) {
		st.pauseUntil = until
	}
}

// paused is how long a host is still to be left alone.
func (s *hostStates) paused(key string) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Until(s.at(key).pauseUntil)
}

// slot waits until fewer than limit downloads from the host are under way.
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

// backOff is the pause after the n-th refusal of a host that does not say how long: a second, two, four…, of
// which up to a half is left to chance, so that many nodes do not come back at once.
func backOff(n int) time.Duration {
	d := time.Second << min(n, 4)
	return d/2 + rand.N(d/2)
}
