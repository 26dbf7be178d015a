package stream

import (
	"context"
	"errors"
	"strings"
)

// failed has to be deferred before recovered. It logs a session that failed for its client. What is not a failure of a
// session: the exit code of its command, a client that leaves, and the end of the daemon. A panic is in the log already.
func (s *Server) failed(n announcement, err *error) {
	var exit exitError
	switch {
	case *err == nil, errors.As(*err, &exit), errors.Is(*err, context.Canceled), errors.Is(*err, errLost),
		strings.HasPrefix((*err).Error(), restarting):
		return
	}
	s.log.Error("session failed", "session", n.kind(), "object", n.object(), "error", *err)
}
