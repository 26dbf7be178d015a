package recovery

import (
	"time"

	"github.com/pinfold-run/pinfold/internal/pod"
)

// Debt is one object on the list.
type Debt struct {
	// Kind is "sandbox" or "container".
	Kind string
	// Since is when the object was put on the list. The start of the daemon begins a new list.
	Since time.Time
}

// List returns the debts, in no order.
func (d *Debts) List() []Debt {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]Debt, 0, len(d.owed))
	for _, owed := range d.owed {
		kind := "container"
		if _, ok := owed.object.(*pod.Sandbox); ok {
			kind = "sandbox"
		}
		list = append(list, Debt{Kind: kind, Since: owed.since})
	}
	return list
}
