package metrics

import (
	"runtime"
	"sync"
)

// other is the label of all names beyond the bound.
const other = "other"

// names bounds the values of a label: the first ones keep their names, the rest is "other".
type names struct {
	most int

	mu    sync.Mutex
	known map[string]bool
}

func (n *names) name(s string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known[s] {
		return s
	}
	if len(n.known) >= n.most {
		return other
	}
	if n.known == nil {
		n.known = map[string]bool{}
	}
	n.known[s] = true
	return s
}

func goVersion() string { return runtime.Version() }
