package pod

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/supervisor"
)

// CheckAttach says what speaks against attaching to the container now.
func (s *Containers) CheckAttach(id string) error {
	_, err := s.in("Attach", id, Running, Created)
	return err
}

// maxLag is how many bytes of each output a client may be behind before it is cut off.
const maxLag = 16 << 20

// Attach connects a client to a container's own standard streams until the container ends (no error), or
// ctx does, with the client's connection. The client gets all that comes out from now on, as it goes to the log, and
// disturbs neither the container nor other clients: one that lags more than maxLag behind is cut off with an error.
//
// Several clients may write to standard input at once. With stdin_once the first that asks for it has it alone,
// and it ends when that client's does; later ones get output only. A terminal stays open for everybody.
//
// Pinder's end does not end the session: it goes on with the next one, of which only what came out in
// between is missing.
func (s *Containers) Attach(ctx context.Context, id string, client Streams) error {
	c, err := s.in("Attach", id, Running, Created)
	if err != nil {
		return err
	}
	config := c.Record().Config
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n := &attached{
		node: s.node, container: c,
		request: supervisor.AttachRequest{
			ID: c.ID, AttachID: newID(),
			Stdin: client.In != nil && config.GetStdin(), StdinOnce: config.GetStdinOnce(),
			Stdout: client.Out != nil, Stderr: client.Err != nil,
		},
		out: newBacklog(), errs: newBacklog(),
	}
	files, err := s.node.Pinder.Attach(ctx, n.request)
	if err != nil {
		return fmt.Errorf("attach to container %s: %w", c.ID, err)
	}
	go follow(client.Resize, func(size TerminalSize) error {
		return s.node.Pinder.Resize(ctx, c.ID, "", size.Width, size.Height)
	})
	fed := feed(ctx, files.Stdin, client.In)
	if client.Out == nil && client.Err == nil {
		files.CloseOutputs()
		return n.inputOnly(ctx, fed)
	}
	return n.serve(ctx, files, client)
}

// feed copies a client's input to a container, or to nobody, until it ends. The returned channel is closed then.
func feed(ctx context.Context, to *os.File, from io.Reader) <-chan struct{} {
	fed := make(chan struct{})
	if to != nil {
		context.AfterFunc(ctx, func() { _ = to.Close() })
	}
	go func() {
		defer close(fed)
		switch {
		case from == nil:
			if to != nil {
				_ = to.Close()
			}
		case to == nil:
			_, _ = io.Copy(io.Discard, from)
		default:
			_, _ = io.Copy(to, from)
			_ = to.Close()
			_, _ = io.Copy(io.Discard, from) // the container may have closed its end
		}
	}()
	return fed
}

// attached is one client's session.
type attached struct {
	node      *Node
	container *Container
	request   supervisor.AttachRequest
	out, errs *backlog
}

func (n *attached) inputOnly(ctx context.Context, fed <-chan struct{}) error {
	select {
	case <-fed:
	case <-n.container.ended:
	case <-ctx.Done():
	}
	return nil
}

// serve delivers output until its end.
func (n *attached) serve(ctx context.Context, files *supervisor.Attachment, client Streams) error {
	context.AfterFunc(ctx, n.out.drop)
	context.AfterFunc(ctx, n.errs.drop)
	var writers sync.WaitGroup
	writers.Go(func() { n.out.writeTo(client.Out) })
	writers.Go(func() { n.errs.writeTo(client.Err) })
	if err := n.receive(ctx, files); err != nil {
		// A client that was cut off is not waited for either.
		n.out.drop()
		n.errs.drop()
		return err
	}
	n.out.end()
	n.errs.end()
	writers.Wait()
	return nil
}

// receive reads output, of one pinder after the other.
func (n *attached) receive(ctx context.Context, files *supervisor.Attachment) error {
	n.request.Stdin = false // the client has it, whatever becomes of pinder
	for {
		if err := n.read(ctx, files); err != nil {
			return err
		}
		// The end of the output, of pinder, or of its patience? It knows.
		var err error
		files, err = n.node.Pinder.Attach(ctx, n.request)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("attach to container %s: the client is gone: %w", n.container.ID, ctx.Err())
		case errors.Is(err, errdefs.ErrNotFound), errors.Is(err, errdefs.ErrFailedPrecondition), err == nil && files.Ended():
			select {
			case <-n.container.ended:
				return nil
			case <-ctx.Done():
				return fmt.Errorf("attach to container %s: the client is gone: %w", n.container.ID, ctx.Err())
			}
		case err != nil:
			return fmt.Errorf("attach to container %s: %w", n.container.ID, err)
		}
	}
}

// read reads both outputs to their end.
func (n *attached) read(ctx context.Context, files *supervisor.Attachment) error {
	defer context.AfterFunc(ctx, files.CloseOutputs)()
	defer files.CloseOutputs()
	var both sync.WaitGroup
	var lost [2]error
	for i, from := range []*os.File{files.Stdout, files.Stderr} {
		if from == nil {
			continue
		}
		to := []*backlog{n.out, n.errs}[i]
		both.Go(func() {
			if _, err := io.Copy(to, from); errors.Is(err, errLagging) {
				lost[i] = fmt.Errorf("attach to container %s: %w", n.container.ID, err)
				files.CloseOutputs()
			}
		})
	}
	both.Wait()
	return errors.Join(lost[0], lost[1])
}

var errLagging = fmt.Errorf("the client reads too slowly: it is more than %d MiB behind and was cut off: %w", maxLag>>20, errdefs.ErrResourceExhausted)

// backlog is output that waits for its client. It decouples the two: its writer never waits.
type backlog struct {
	mu      sync.Mutex
	changed *sync.Cond
	chunks  [][]byte
	size    int  // bytes, with those that are being written
	ended   bool // no more comes
	dropped bool // nobody wants any more
}

func newBacklog() *backlog {
	b := &backlog{}
	b.changed = sync.NewCond(&b.mu)
	return b
}

// Write implements io.Writer. It returns errLagging when the client is too far behind.
func (b *backlog) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dropped {
		return len(p), nil
	}
	if b.size+len(p) > maxLag {
		return 0, errLagging
	}
	b.chunks = append(b.chunks, bytes.Clone(p))
	b.size += len(p)
	b.changed.Signal()
	return len(p), nil
}

func (b *backlog) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	b.changed.Signal()
}

func (b *backlog) drop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dropped, b.chunks = true, nil
	b.changed.Signal()
}

// take waits for data; nil is the end.
func (b *backlog) take() [][]byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.chunks) == 0 && !b.ended && !b.dropped {
		b.changed.Wait()
	}
	chunks := b.chunks
	b.chunks = nil
	return chunks
}

// maxWrite is the most that one message to a client carries, in bytes.
const maxWrite = 32 << 10

// writeTo delivers until the end. w may be nil where nothing comes.
func (b *backlog) writeTo(w io.Writer) {
	for {
		chunks := b.take()
		if len(chunks) == 0 {
			return
		}
		for _, chunk := range chunks {
			for piece := range slices.Chunk(chunk, maxWrite) {
				if _, err := w.Write(piece); err != nil {
					b.drop()
					return
				}
				if b.wrote(len(piece)) {
					return
				}
			}
		}
	}
}

func (b *backlog) wrote(n int) (dropped bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.size -= n
	return b.dropped
}
