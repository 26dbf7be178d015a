package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/pinder/client"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
	"github.com/pinfold-run/pinfold/internal/pod"
)

// CheckAttach says why a client cannot attach to the container now, nil if it can.
func (s *Sessions) CheckAttach(id string) error {
	_, err := s.in("Attach", id, pod.Running, pod.Created)
	return err
}

// Attach connects a client to a container's own standard streams. It returns when the container ends (no error), or when
// ctx ends with the client's connection. The client gets all output from now on, as the log does. It delays neither the
// container nor other clients: a client that is more than maxLag behind is cut off with an error. If all clients together
// are more than maxLagTogether behind, the one that is furthest behind is cut off.
//
// Several clients may write to standard input at once. With stdin_once only the first that asks for it may, and standard
// input ends when that client's does; later clients get output only. A terminal stays open for all clients.
//
// If pinder ends, the session goes on with the next pinder. Only the output in between is missing.
func (s *Sessions) Attach(ctx context.Context, id string, user Streams) error {
	c, err := s.in("Attach", id, pod.Running, pod.Created)
	if err != nil {
		return err
	}
	config := c.Record().Config
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	reading, cancelReading := context.WithCancel(ctx)
	defer cancelReading()
	n := &attached{
		pinder: s.Pinder, container: c,
		request: wire.Attach{
			ID: c.ID, AttachID: pod.NewExecID(),
			Stdin: user.In != nil && config.GetStdin(), StdinOnce: config.GetStdinOnce(),
			Stdout: user.Out != nil, Stderr: user.Err != nil,
		},
		out: newBacklog(&s.lag, cancelReading), errs: newBacklog(&s.lag, cancelReading), reading: reading,
	}
	files, err := s.Pinder.Attach(ctx, n.request)
	if err != nil {
		return fmt.Errorf("attach to container %s: %w", c.ID, err)
	}
	user.begun()
	go follow(user.Resize, func(size TerminalSize) error {
		return s.Pinder.Resize(ctx, c.ID, "", size.Width, size.Height)
	})
	fed := feed(ctx, files.Stdin, user.In)
	if user.Out == nil && user.Err == nil {
		files.CloseOutputs()
		return n.inputOnly(ctx, fed)
	}
	return n.serve(ctx, files, user)
}

// feed copies a client's input to a container, or drops it, until it ends. The returned channel is closed then.
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
			_, _ = io.Copy(io.Discard, from) // the container may have closed its standard input
		}
	}()
	return fed
}

// attached is one client's session.
type attached struct {
	pinder    Pinder
	container *pod.Container
	request   wire.Attach
	out, errs *backlog
	reading   context.Context // ends before the session's if the client is cut off
}

func (n *attached) inputOnly(ctx context.Context, fed <-chan struct{}) error {
	select {
	case <-fed:
	case <-n.container.Ended:
	case <-ctx.Done():
		return fmt.Errorf("attach to container %s: %w", n.container.ID, context.Cause(ctx))
	}
	return nil
}

// serve delivers output until its end.
func (n *attached) serve(ctx context.Context, files *client.Attachment, user Streams) error {
	context.AfterFunc(ctx, n.out.drop)
	context.AfterFunc(ctx, n.errs.drop)
	var writers sync.WaitGroup
	writers.Go(func() { n.out.writeTo(user.Out) })
	writers.Go(func() { n.errs.writeTo(user.Err) })
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

// receive reads output, from one pinder after the other.
func (n *attached) receive(ctx context.Context, files *client.Attachment) error {
	n.request.Stdin = false // the client keeps it, also with the next pinder
	for {
		if err := n.read(n.reading, files); err != nil {
			return err
		}
		// The output has ended, pinder has, or pinder has cut the client off. The next request tells which.
		var err error
		files, err = n.pinder.Attach(ctx, n.request)
		switch {
		case err == nil && !files.Ended():
			// The next read closes them, also when the client has gone meanwhile.
		case ctx.Err() != nil:
			return fmt.Errorf("attach to container %s: the client is gone: %w", n.container.ID, ctx.Err())
		case err == nil, errors.Is(err, errdefs.ErrNotFound), errors.Is(err, errdefs.ErrFailedPrecondition):
			select {
			case <-n.container.Ended:
				return nil
			case <-ctx.Done():
				return fmt.Errorf("attach to container %s: the client is gone: %w", n.container.ID, ctx.Err())
			}
		default:
			return fmt.Errorf("attach to container %s: %w", n.container.ID, err)
		}
	}
}

// read reads both outputs to their end.
func (n *attached) read(ctx context.Context, files *client.Attachment) error {
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
	for _, b := range []*backlog{n.out, n.errs} {
		if err := b.failure(); err != nil {
			return fmt.Errorf("attach to container %s: %w", n.container.ID, err)
		}
	}
	return errors.Join(lost[0], lost[1])
}
