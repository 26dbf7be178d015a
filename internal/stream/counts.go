package stream

import "net/http"

// Sort is a kind of sessions over one protocol.
type Sort struct {
	// Kind is "exec", "attach" or "portforward"; Protocol is "spdy" or "websocket".
	Kind, Protocol string
}

// Count is how many sessions of a Sort are open, and how many were begun since the daemon started.
type Count struct {
	Open  int
	Total uint64
}

// Counts returns the counts of each Sort that there was.
func (s *Server) Counts() map[Sort]Count {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[Sort]Count, len(s.counts))
	for sort, n := range s.counts {
		all[sort] = *n
	}
	return all
}

// counted counts a session until ended is called.
func (s *Server) counted(kind string, r *http.Request) (ended func()) {
	sort := Sort{Kind: kind, Protocol: "spdy"}
	if hasToken(r.Header, "Upgrade", "websocket") {
		sort.Protocol = "websocket"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.counts[sort]
	if n == nil {
		n = &Count{}
		s.counts[sort] = n
	}
	n.Open++
	n.Total++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		n.Open--
	}
}
