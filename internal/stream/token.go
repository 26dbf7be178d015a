package stream

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

const (
	// tokenLife is how long a client may take to connect to its URL.
	tokenLife = time.Minute
	// maxTokens is how many requests may wait for their client.
	maxTokens = 1000
	// maxRequests limits the memory of all requests that wait for a client or have a session, in
	// bytes. A command and its arguments may have megabytes.
	maxRequests = 32 << 20
)

// tokens are the announced sessions that wait for their client.
type tokens struct {
	mu      sync.Mutex
	waiting map[string]announcement
	bytes   int // of all requests that are not done
}

// add returns a new token. ErrResourceExhausted if too many wait.
func (t *tokens) add(s announcement) (string, error) {
	var random [32]byte
	// crypto/rand.Read never fails (Go 1.24 and later).
	_, _ = rand.Read(random[:])
	token := hex.EncodeToString(random[:])
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.waiting) >= maxTokens {
		return "", fmt.Errorf("%d streaming requests wait for their clients; the oldest expires within %s: %w",
			len(t.waiting), tokenLife, errdefs.ErrResourceExhausted)
	}
	if t.bytes+s.size() > maxRequests {
		return "", fmt.Errorf("streaming requests use %d bytes and this one %d, of at most %d: %w",
			t.bytes, s.size(), maxRequests, errdefs.ErrResourceExhausted)
	}
	t.bytes += s.size()
	if t.waiting == nil {
		t.waiting = map[string]announcement{}
	}
	t.waiting[token] = s
	time.AfterFunc(tokenLife, func() {
		if expired := t.take(token); expired != nil {
			t.done(expired)
		}
	})
	return token, nil
}

// take removes a token and returns its session, nil if there is none. The caller calls done for it
// at the end.
func (t *tokens) take(token string) announcement {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.waiting[token]
	delete(t.waiting, token)
	return s
}

// done releases the memory of a session's request.
func (t *tokens) done(s announcement) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bytes -= s.size()
}
