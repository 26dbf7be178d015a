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
		streams.Out, streams.Begun = l.t.out, func() { close(connected) }
		if config.Stdin && streamclient.IsTerminal(l.t.in) {
			if a.terminal, err = streamclient.RawTerminal(l.t.in); err != nil {
				a.close()
				return nil, err
			}
			streams.Sizes = a.terminal.Sizes
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
