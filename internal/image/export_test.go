package image

import "strings"

// Waiters is how many callers wait for the pull of ref.
func (s *Store) Waiters(ref string) int {
	s.pulls.mu.Lock()
	defer s.pulls.mu.Unlock()
	n := 0
	for key, fl := range s.pulls.running {
		if strings.HasPrefix(key, ref+" ") {
			n += fl.waiters
		}
	}
	return n
}
