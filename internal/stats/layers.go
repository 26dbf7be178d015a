package stats

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/fault"
	"github.com/pinfold-run/pinfold/internal/tree"
)

// Layer is the usage of a writable layer and its file system at one time.
type Layer struct {
	At time.Time
	// Bytes are those allocated on disk; a file with several names counts once.
	Bytes, Inodes uint64
	// Size, FreeInodes and TotalInodes are the file system's.
	Size, FreeInodes, TotalInodes uint64
}

const (
	// layerAge is the time after which a layer is measured again…
	layerAge = 8 * time.Second
	// idleAge is layerAge of a layer that no client has asked for since it was measured.
	idleAge = 8 * layerAge
	// …but measuring takes at most a twentieth of the time.
	layerShare = 20
	// walkers is how many layers are measured at once. One whose file system hangs blocks one walker.
	walkers = 2
	// firstLook limits the wait for the first measurement of new layers.
	firstLook = 100 * time.Millisecond
)

// layers knows the usage of writable layers, measured in the background.
type layers struct {
	mu sync.Mutex
	of map[string]*layer
	// wake has room for one message: there is a new layer to measure.
	wake chan struct{}
}

type layer struct {
	dir string
	// asked is when a client asked for it last, or when its container was last seen running.
	asked time.Time
	// wanted: a client has asked for it since the last measurement.
	wanted bool
	seen   *Layer
	// due is when to measure again; busy while a goroutine does.
	due  time.Time
	busy bool
	// first is closed when seen is set, or when the measurement failed.
	first chan struct{}
}

// Layer returns the last measurement of a container's writable layer, nil if there is none yet.
func (r *Reader) Layer(c Container) *Layer {
	r.layers.mu.Lock()
	defer r.layers.mu.Unlock()
	if l := r.layers.of[c.ID]; l != nil {
		return l.seen
	}
	return nil
}

// Expect has new layers measured in the background, and waits up to a tenth of a second for all of them together. A new
// container's takes less. It does not wait for layers that were measured before.
func (r *Reader) Expect(ctx context.Context, containers []Container) {
	ctx, cancel := context.WithTimeout(ctx, firstLook)
	defer cancel()
	for _, first := range r.layers.expect(containers, true) {
		select {
		case <-first:
		case <-ctx.Done():
			return
		}
	}
}

// expect returns the channels to wait for. What a client asks for is measured now if it is due.
func (l *layers) expect(containers []Container, client bool) []chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.init()
	var wait []chan struct{}
	stale := false
	for _, c := range containers {
		if c.Layer == "" {
			continue
		}
		known := l.of[c.ID]
		if known == nil {
			known = &layer{dir: c.Layer, first: make(chan struct{})}
			l.of[c.ID] = known
		}
		known.asked = time.Now()
		if client {
			known.wanted = true
			stale = stale || !known.due.After(time.Now())
		}
		if known.seen == nil {
			wait = append(wait, known.first)
		}
	}
	if len(wait) > 0 || stale {
		l.awake()
	}
	return wait
}

// The caller of init and awake holds mu.
func (l *layers) init() {
	if l.of == nil {
		l.of, l.wake = map[string]*layer{}, make(chan struct{}, 1)
	}
}

func (l *layers) awake() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// keep adds containers, and forgets layers that were not asked for since then.
func (l *layers) keep(containers []Container, since time.Time) {
	l.expect(containers, false)
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, one := range l.of {
		if one.asked.Before(since) {
			delete(l.of, id)
		}
	}
	l.awake()
}

// run measures layers that are due, until ctx ends.
func (l *layers) run(ctx context.Context) {
	l.mu.Lock()
	l.init()
	wake := l.wake
	l.mu.Unlock()
	work := make(chan *layer)
	defer close(work)
	for range walkers {
		go func() {
			for one := range work {
				l.look(ctx, one)
			}
		}()
	}
	for {
		select {
		case <-wake:
		case <-ctx.Done():
			return
		}
		for one := l.take(); one != nil; one = l.take() {
			select {
			case work <- one:
			case <-ctx.Done():
				return
			}
		}
	}
}

// take returns the layer that is overdue for the longest time, new ones first; nil if none is due.
func (l *layers) take() *layer {
	l.mu.Lock()
	defer l.mu.Unlock()
	var next *layer
	for _, one := range l.of {
		if !one.busy && one.ready(time.Now()) && (next == nil || one.due.Before(next.due)) {
			next = one
		}
	}
	if next != nil {
		next.busy, next.wanted = true, false
	}
	return next
}

// ready reports whether it is time to measure the layer. One that no client asks for has more time.
func (l *layer) ready(now time.Time) bool {
	over := now.Sub(l.due)
	return l.wanted && over >= 0 || over >= idleAge-layerAge
}

func (l *layers) look(ctx context.Context, one *layer) {
	begun := time.Now()
	var seen *Layer
	fault.Logged(slog.Default(), func() { seen = measure(ctx, one.dir) }, "path", one.dir)
	l.mu.Lock()
	defer l.mu.Unlock()
	one.busy = false
	one.due = time.Now().Add(max(layerAge, layerShare*time.Since(begun)))
	if seen != nil {
		one.seen = seen
	}
	select {
	case <-one.first:
	default:
		close(one.first)
	}
}

// measure walks through a directory. It does not leave it, whatever links are there and whatever the container changes
// meanwhile. It returns nil if the directory is missing or ctx has ended.
func measure(ctx context.Context, dir string) *Layer {
	var file unix.Statfs_t
	if err := unix.Statfs(dir, &file); err != nil {
		return nil
	}
	l := &Layer{
		At: time.Now(), Size: file.Blocks * uint64(file.Bsize), //nolint:unconvert // the type differs between architectures
		FreeInodes: file.Ffree, TotalInodes: file.Files,
	}
	// A file with n names counts an nth for each. To remember the files instead would take as much memory as containers
	// like.
	var bytes, inodes float64
	count := func(st *unix.Stat_t) {
		names := 1.0
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			names = max(1, float64(st.Nlink))
		}
		const blockSize = 512 // of st_blocks, whatever the file system's is: stat(2)
		inodes += 1 / names
		bytes += float64(st.Blocks) * blockSize / names
	}
	var top unix.Stat_t
	if err := unix.Lstat(dir, &top); err != nil {
		return nil
	}
	count(&top)
	err := (&tree.Walk{Visit: func(e *tree.Entry) error {
		count(&e.Stat)
		return nil
	}}).Run(ctx, dir)
	if err != nil {
		return nil
	}
	l.Bytes, l.Inodes = uint64(math.Round(bytes)), uint64(math.Round(inodes))
	return l
}
