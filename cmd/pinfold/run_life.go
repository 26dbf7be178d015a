package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// life is one run: what it has made, so that it can remove it at any moment.
type life struct {
	t       *tool
	n       *node
	o       *runOptions
	sandbox *runtimeapi.PodSandboxConfig
	pod     string
	// phase is what the command does after a signal; nil if it just ends, or stops the container.
	phase atomic.Pointer[string]
	// asked is set when the daemon is asked to make the pod.
	asked atomic.Bool
	urge  *urges
}

// urges are the signals that came. Each of the contexts ends with one of them.
type urges struct {
	// gentle ends with the first signal: stop, and remove everything.
	gentle context.Context
	// now ends with the second: kill.
	now context.Context
	// last ends with the third: leave at once.
	last  context.Context
	close func()
}

// heed reads signals. told is called with each, and its number from 1.
func heed(ctx context.Context, signals <-chan os.Signal, told func(number int)) *urges {
	var cancel [3]context.CancelCauseFunc
	u := &urges{}
	u.last, cancel[2] = context.WithCancelCause(ctx)
	u.now, cancel[1] = context.WithCancelCause(u.last)
	u.gentle, cancel[0] = context.WithCancelCause(u.now)
	u.close = func() { cancel[2](nil) }
	go func() {
		var last time.Time
		for i := 0; i < len(cancel); {
			select {
			case s := <-signals:
				if again := time.Since(last) < sameSignal; again {
					continue
				}
				last = time.Now()
				told(i + 1)
				cancel[i](asInterrupt(s))
				i++
			case <-u.last.Done():
				return
			}
		}
	}()
	return u
}

// sameSignal is the time in which a second signal is the first once more: timeout(1) and others signal
// the process, and then its group.
const sameSignal = 100 * time.Millisecond

// signal is the first signal that came; false if none did.
func (u *urges) signal() (interrupted, bool) {
	return errors.AsType[interrupted](context.Cause(u.gentle))
}

func run(ctx context.Context, t *tool, o *runOptions) error {
	l := &life{t: t, o: o}
	l.urge = heed(ctx, t.signals, l.told)
	defer l.urge.close()
	err := l.run()
	if s, ok := l.urge.signal(); ok && err != nil {
		if _, code := errors.AsType[exitCode](err); !code {
			if _, same := errors.AsType[interrupted](err); !same && !isCanceled(err) {
				t.complain(plain(err))
			}
			return s
		}
	}
	return err
}

// told says what the command does after a signal.
func (l *life) told(number int) {
	phase := l.phase.Load()
	switch {
	case number > 2 && l.asked.Load():
		l.t.complain(fmt.Sprintf("left at once: pod %s may stay; pinfold ps --all lists it, pinfold rm removes it", l.o.pod.name))
	case phase != nil:
		l.t.complain("interrupted: " + *phase)
	}
}

func (l *life) is(phase string) { l.phase.Store(&phase) }

// run makes the pod, waits for the end of its container, and removes it.
func (l *life) run() error {
	early := l.urge.gentle
	n, err := l.t.connect(early)
	if err != nil {
		return err
	}
	defer n.close()
	l.n = n
	if err := n.ensureImage(early, l.t, l.o.container.image, l.o.pull); err != nil {
		return err
	}
	users, err := l.o.pod.chooseUserNS(early, n)
	if err != nil {
		return err
	}
	l.sandbox = l.o.pod.config(users)
	config, err := l.o.container.config(l.sandbox)
	if err != nil {
		return err
	}
	if err := l.makeLog(); err != nil {
		return err
	}
	err = l.makePod()
	if err == nil {
		err = l.container(config)
	}
	if err == nil && l.o.keep {
		fmt.Fprintln(l.t.out, l.pod)
		return nil
	}
	if _, ended := errors.AsType[exitCode](err); (err == nil || ended) && !l.o.remove {
		return err
	}
	return errors.Join(err, l.remove())
}

// makeLog makes the directory of the log.
func (l *life) makeLog() error {
	if err := l.n.logs.prepare(); err != nil {
		return err
	}
	dir, err := l.o.pod.makeLogDir()
	if err != nil {
		return errors.Join(err, l.n.logs.tidy())
	}
	l.sandbox.LogDirectory = dir
	return nil
}

// makePod makes the pod. The daemon goes on to make it if this command ends the call. So a signal
// does not end the call: the pod is removed when it is made.
func (l *life) makePod() error {
	l.is("waiting until the daemon has made the pod, to remove it")
	if err := l.urge.gentle.Err(); err != nil {
		return err
	}
	l.asked.Store(true)
	pod, err := l.n.runtime.RunPodSandbox(l.urge.last, &runtimeapi.RunPodSandboxRequest{Config: l.sandbox, RuntimeHandler: l.o.pod.handler})
	if err != nil {
		return l.o.pod.explain(err)
	}
	l.pod = pod.PodSandboxId
	return l.n.logs.remember(l.pod, l.sandbox.LogDirectory)
}

// container makes and starts the container. Without --keep it waits for the container's end and returns its
// exit code.
func (l *life) container(config *runtimeapi.ContainerConfig) error {
	ctx := l.urge.gentle
	l.is("removing the pod")
	created, err := l.n.runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: l.pod, SandboxConfig: l.sandbox, Config: config})
	if err != nil {
		return err
	}
	id := created.ContainerId
	var s session = &logSession{l: l, id: id}
	if config.Stdin || config.Tty {
		// Before the start, so that no output is missed.
		if s, err = l.attach(id, config); err != nil {
			return err
		}
	}
	defer s.close()
	if _, err := l.n.runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: id}); err != nil {
		return err
	}
	if l.o.keep {
		return ctx.Err()
	}
	l.phase.Store(nil)
	stopped := make(chan struct{})
	ended, cancel := context.WithCancel(l.urge.last)
	go func() {
		defer close(stopped)
		l.stopOnSignal(ended, id)
	}()
	err = s.wait(l.urge.last)
	cancel()
	<-stopped
	l.is("removing the pod")
	return err
}

// session shows a container's output until its end.
type session interface {
	// wait returns the container's exit code as an error.
	wait(ctx context.Context) error
	// close ends it. It may be called more than once.
	close()
}

// logSession shows what comes into the log.
type logSession struct {
	l  *life
	id string
}

func (s *logSession) wait(ctx context.Context) error {
	return s.l.n.follow(ctx, s.l.t, s.id, &logOptions{tail: -1})
}

func (*logSession) close() {}

// stopOnSignal stops the container when a signal comes, and kills it at the second. It returns when ctx ends.
func (l *life) stopOnSignal(ctx context.Context, id string) {
	stop := func(grace int64) {
		_, err := l.n.runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: grace})
		if err != nil && ctx.Err() == nil {
			l.t.complain("stop the container: " + plain(err))
		}
	}
	select {
	case <-l.urge.gentle.Done():
	case <-ctx.Done():
		return
	}
	gentle := make(chan struct{})
	go func() {
		defer close(gentle)
		stop(l.o.grace.inSeconds())
	}()
	select {
	case <-l.urge.now.Done():
		stop(0)
	case <-ctx.Done():
	}
	<-gentle
}

// remove removes what was made. It waits for operations of the daemon that are in progress.
func (l *life) remove() error {
	ctx, cancel := context.WithTimeout(l.urge.last, cleanTimeout)
	defer cancel()
	err := l.n.patiently(ctx, func() error {
		ids, err := l.podIDs(ctx)
		for _, id := range ids {
			l.pod = id
			err = errors.Join(err, ignoreNotFound(l.n.removePod(ctx, id)))
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("pod %s may stay; pinfold ps --all lists it, pinfold rm removes it: %w", l.o.pod.name, err)
	}
	return errors.Join(removeLog(l.sandbox.GetLogDirectory()), l.n.logs.tidy())
}

// podIDs finds the pod by its uid, which only this run has. The call that made it may have failed on
// its way back.
func (l *life) podIDs(ctx context.Context) ([]string, error) {
	list, err := l.n.runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, pod := range list.Items {
		if pod.GetMetadata().GetUid() == l.sandbox.GetMetadata().GetUid() {
			ids = append(ids, pod.Id)
		}
	}
	return ids, nil
}

func ignoreNotFound(err error) error {
	if isNotFound(err) {
		return nil
	}
	return err
}

// isCanceled tells that a call ended with its context.
func isCanceled(err error) bool {
	return errors.Is(err, context.Canceled) || status.Code(err) == codes.Canceled
}
