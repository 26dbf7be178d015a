package main

import (
	"context"
	"fmt"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/streamclient"
)

// attached is a session with a container's own streams. Of a container without a terminal, only the input goes through
// it: the output comes from the log, where none of it is missed.
type attached struct {
	l        *life
	id       string
	terminal *streamclient.Terminal
	tty      bool
	cancel   context.CancelFunc
	// ended gets the end of the session.
	ended chan error
}

// attach connects to a container that was created and not started.
func (l *life) attach(id string, config *runtimeapi.ContainerConfig) (_ session, err error) {
	resp, err := l.n.runtime.Attach(l.urge.gentle, &runtimeapi.AttachRequest{
		ContainerId: id, Stdin: config.Stdin, Tty: config.Tty, Stdout: config.Tty,
	})
	if err != nil {
		return nil, err
	}
	a := &attached{l: l, id: id, tty: config.Tty, ended: make(chan error, 1)}
	streams := streamclient.Streams{}
	if config.Stdin {
		streams.In = l.t.in
	}
	var ctx context.Context
	ctx, a.cancel = context.WithCancel(l.urge.last)
	connected := make(chan struct{})
	if config.Tty {
		streams.Out = l.t.out
		if streams.Sizes, err = a.takeTerminal(ctx, config.Stdin, connected); err != nil {
			return nil, err
		}
	} else {
		close(connected)
	}
	go func() { a.ended <- streamclient.Attach(ctx, resp.Url, streams) }()
	select {
	case <-connected:
		return a, nil
	case err = <-a.ended:
	case <-l.urge.gentle.Done():
		err = l.urge.gentle.Err()
	}
	a.close()
	return nil, fmt.Errorf("attach to the container: %w", err)
}

// takeTerminal returns the sizes of the user's terminal. connected is closed when the session takes the first: it does
// that when it is connected.
func (a *attached) takeTerminal(ctx context.Context, input bool, connected chan<- struct{}) (<-chan streamclient.Size, error) {
	var from <-chan streamclient.Size
	if input && streamclient.IsTerminal(a.l.t.in) {
		var err error
		if a.terminal, err = streamclient.RawTerminal(a.l.t.in); err != nil {
			a.close()
			return nil, err
		}
		from = a.terminal.Sizes
	} else {
		first := make(chan streamclient.Size, 1)
		first <- streamclient.Size{Width: 80, Height: 24}
		from = first
	}
	to := make(chan streamclient.Size)
	go func() {
		for first := true; ; first = false {
			select {
			case <-ctx.Done():
				return
			case size := <-from:
				select {
				case <-ctx.Done():
					return
				case to <- size:
				}
			}
			if first {
				close(connected)
			}
		}
	}()
	return to, nil
}

// wait implements session.
func (a *attached) wait(ctx context.Context) error {
	if !a.tty {
		go func() {
			if err := <-a.ended; err != nil && ctx.Err() == nil {
				a.l.t.complain("the container gets no more input: " + plain(err))
			}
		}()
		return (&logSession{a.l, a.id}).wait(ctx)
	}
	err := <-a.ended
	a.close()
	if err != nil {
		return err
	}
	status, err := a.l.n.exited(ctx, a.id)
	if err != nil {
		return err
	}
	return verdict(a.l.t, status)
}

// close implements session.
func (a *attached) close() {
	a.cancel()
	if a.terminal == nil {
		return
	}
	if err := a.terminal.Restore(); err != nil {
		a.l.t.complain(err.Error())
	}
}
