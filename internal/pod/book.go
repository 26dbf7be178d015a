package pod

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
)

// Book is the index of all sandboxes and containers of this node.
type Book struct {
	mu         sync.RWMutex
	sandboxes  map[string]*Sandbox
	containers map[string]*Container
}

// NewBook returns an empty index.
func NewBook() *Book {
	return &Book{sandboxes: map[string]*Sandbox{}, containers: map[string]*Container{}}
}

// Sandbox finds a sandbox by its ID or by an unambiguous beginning of it. ErrNotFound otherwise.
func (b *Book) Sandbox(id string) (*Sandbox, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return find(b.sandboxes, "sandbox", id)
}

// Container finds a container by its ID or by an unambiguous beginning of it. ErrNotFound otherwise.
func (b *Book) Container(id string) (*Container, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return find(b.containers, "container", id)
}

// Sandboxes returns all, the newest first.
func (b *Book) Sandboxes() []*Sandbox {
	b.mu.RLock()
	all := make([]*Sandbox, 0, len(b.sandboxes))
	for _, s := range b.sandboxes {
		all = append(all, s)
	}
	b.mu.RUnlock()
	slices.SortFunc(all, func(x, y *Sandbox) int { return y.Record().Created.Compare(x.Record().Created) })
	return all
}

// Containers returns all, the newest first.
func (b *Book) Containers() []*Container {
	return b.pick(func(*Container) bool { return true })
}

// ContainersOf returns the containers of a sandbox, the newest first.
func (b *Book) ContainersOf(sandbox string) []*Container {
	return b.pick(func(c *Container) bool { return c.Sandbox == sandbox })
}

func (b *Book) pick(want func(*Container) bool) []*Container {
	b.mu.RLock()
	var all []*Container
	for _, c := range b.containers {
		if want(c) {
			all = append(all, c)
		}
	}
	b.mu.RUnlock()
	slices.SortFunc(all, func(x, y *Container) int { return y.Record().Times.Created.Compare(x.Record().Times.Created) })
	return all
}

// Ready finds the ready sandbox with that Identity, nil if there is none.
func (b *Book) Ready(key string) *Sandbox {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, s := range b.sandboxes {
		if rec := s.Record(); rec.State == Ready && rec.Identity() == key {
			return s
		}
	}
	return nil
}

// Live finds the created or running container with that Identity, nil if there is none.
func (b *Book) Live(sandbox, key string) *Container {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, c := range b.containers {
		rec := c.Record()
		if c.Sandbox == sandbox && (rec.State == Created || rec.State == Running) && rec.Identity() == key {
			return c
		}
	}
	return nil
}

// AddSandbox puts a sandbox into the index.
func (b *Book) AddSandbox(s *Sandbox) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sandboxes[s.ID] = s
}

// RemoveSandbox removes a sandbox from the index.
func (b *Book) RemoveSandbox(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.sandboxes, id)
}

// Admit adds a container if its sandbox is ready at this moment. A sandbox leaves the state Ready before its containers are
// stopped. So a container is either refused here, or that stop finds it.
func (b *Book) Admit(c *Container) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.sandboxes[c.Sandbox]
	if !ok {
		return &MissingError{Kind: "sandbox", ID: c.Sandbox}
	}
	if state := s.Record().State; state != Ready {
		return fmt.Errorf("sandbox %s is %s, not ready%s: %w", c.Sandbox, state, s.Record().Because(), errdefs.ErrFailedPrecondition)
	}
	b.containers[c.ID] = c
	return nil
}

// AddContainer puts a container into the index, whatever the state of its sandbox; see Admit.
func (b *Book) AddContainer(c *Container) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.containers[c.ID] = c
}

// RemoveContainer removes a container from the index.
func (b *Book) RemoveContainer(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.containers, id)
}

// MissingError says that there is no pod or container with that ID, or with an ID that begins so. Its class is ErrNotFound. A
// client that stops or removes something gets NotFound for this error alone, because for the client that is success.
type MissingError struct {
	// Kind is "sandbox" or "container".
	Kind, ID string
	// Why says more; it may be empty.
	Why string
}

// Error implements error.
func (e *MissingError) Error() string {
	if e.Why != "" {
		return fmt.Sprintf("%s %s %s: %v", e.Kind, e.ID, e.Why, errdefs.ErrNotFound)
	}
	return fmt.Sprintf("%s %s: %v", e.Kind, e.ID, errdefs.ErrNotFound)
}

// Unwrap returns the class.
func (e *MissingError) Unwrap() error { return errdefs.ErrNotFound }

func find[T any](all map[string]T, kind, id string) (T, error) {
	var found T
	if id == "" {
		return found, fmt.Errorf("%s ID is empty: %w", kind, errdefs.ErrInvalidArgument)
	}
	if exact, ok := all[id]; ok {
		return exact, nil
	}
	matches := 0
	for key, value := range all {
		if strings.HasPrefix(key, id) {
			found = value
			matches++
		}
	}
	var none T
	switch matches {
	case 1:
		return found, nil
	case 0:
		return none, &MissingError{Kind: kind, ID: id}
	default:
		return none, fmt.Errorf("%s ID %s is ambiguous: %d begin with it: %w", kind, id, matches, errdefs.ErrInvalidArgument)
	}
}
