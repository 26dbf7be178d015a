package image

import (
	"context"
	"time"

	"github.com/pinfold-run/pinfold/internal/steps"
)

// Watch is told about pulls, for metrics and traces. A nil field is told nothing. What is called must neither block nor
// fail.
type Watch struct {
	// Steps sees each pull as an operation PullImage of the steps resolve, layers and publish.
	Steps steps.Watcher
	// Calls sees the download and the unpacking of each layer.
	Calls steps.CallWatcher
	// Pulled is called when a pull has ended.
	Pulled func(Pulled)
}

// Pulled is a pull that has ended.
type Pulled struct {
	// Registry is the host in the image's name.
	Registry string
	Took     time.Duration
	// Bytes came from registries in this pull, manifests included.
	Bytes int64
	// Unpacked are the layers that this pull unpacked, of Layers that the image has.
	Unpacked, Layers int
	Err              error
}

// pulling is the operation of one pull. The zero value is told nothing.
type pulling struct {
	watch Watch
	op    steps.Operation
	// clean removes secrets from the texts of errors.
	clean func(error) error
}

// operation begins the operation of a pull.
func (w Watch) operation(ctx context.Context, ref string) (context.Context, *pulling, func(error)) {
	p := &pulling{watch: w, op: steps.Operation{Name: "PullImage", Object: "image " + ref}, clean: func(err error) error { return err }}
	if w.Steps == nil {
		return ctx, p, func(error) {}
	}
	ctx, ended := w.Steps.Operation(ctx, p.op, false)
	return ctx, p, ended
}

// step runs one step of a pull.
func (p *pulling) step(ctx context.Context, name string, do func(context.Context) error) error {
	if p.watch.Steps == nil {
		return do(ctx)
	}
	t := steps.Timing{Step: name, Start: time.Now()}
	ctx, ended := p.watch.Steps.Step(ctx, p.op, name)
	err := do(ctx)
	t.Took = time.Since(t.Start)
	seen := p.clean(err)
	if seen != nil {
		t.Error = seen.Error()
	}
	ended(t, seen)
	return err
}

// layer runs work on a layer: "download" or "unpack".
func (p *pulling) layer(ctx context.Context, work, digest string, do func(context.Context) error) error {
	if p == nil || p.watch.Calls == nil {
		return do(ctx)
	}
	ctx, ended := p.watch.Calls.Call(ctx, steps.Call{Kind: steps.Layer, Command: work, Object: digest})
	err := do(ctx)
	ended(p.clean(err))
	return err
}

// pulled tells of the end of a pull.
func (w Watch) pulled(registry string, p *progress, err error) {
	if w.Pulled == nil {
		return
	}
	s := p.status()
	w.Pulled(Pulled{
		Registry: registry, Took: time.Since(p.began), Bytes: p.received.Load(), Unpacked: int(p.unpacked.Load()), Layers: s.Layers, Err: err,
	})
}
