package pod

import (
	"context"
	"log/slog"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// LogPod are the attributes that name a pod in the log. id may be empty.
func LogPod(m *runtimeapi.PodSandboxMetadata, id string) []any {
	args := []any{"namespace", m.GetNamespace(), "pod", m.GetName()}
	if m.GetAttempt() > 0 {
		args = append(args, "attempt", m.GetAttempt())
	}
	if id != "" {
		args = append(args, "pod_id", id)
	}
	return args
}

// LogContainer are the attributes that name a container of the pod that the attributes of name. id
// may be empty.
func LogContainer(m *runtimeapi.ContainerMetadata, of []any, id string) []any {
	args := make([]any, 0, len(of)+6)
	for i := 0; i+1 < len(of); i += 2 {
		if of[i] != "attempt" { // the container has its own
			args = append(args, of[i], of[i+1])
		}
	}
	args = append(args, "container", m.GetName(), "attempt", m.GetAttempt())
	if id != "" {
		args = append(args, "container_id", id)
	}
	return args
}

// life logs what becomes of pods and containers: one line when one is made, started, has ended and
// is removed. It is called where records change, so no line is missed or repeated.
type life struct {
	log  *slog.Logger
	book *Book
}

func (l life) sandboxChanged(s *Sandbox, before, after State) {
	rec := s.Record()
	name := LogPod(rec.Config.GetMetadata(), s.ID)
	switch {
	case before == Creating && after == Ready:
		l.log.Info("pod started", append(name, "handler", rec.Handler, "took", since(rec.Created, time.Now()))...)
	case before == Ready && after != Ready:
		level, args := slog.LevelInfo, name
		args = append(args, "lasted", since(rec.Created, time.Now()))
		if rec.Reason != "" { // no request asked for it
			level, args = slog.LevelWarn, append(args, "reason", rec.Reason)
		}
		l.log.Log(context.Background(), level, "pod stopped", args...)
	}
}

func (l life) sandboxRemoved(s *Sandbox) {
	if s.announced {
		l.log.Info("pod removed", LogPod(s.Record().Config.GetMetadata(), s.ID)...)
	}
}

func (l life) containerChanged(c *Container, before, after State) {
	rec := c.Record()
	switch {
	case before == Creating && after == Created:
		l.log.Info("container made", append(l.name(c), "image", rec.ImageName(), "took", since(rec.Times.Created, time.Now()))...)
	case before == Created && after == Running:
		l.log.Info("container started", append(l.name(c), "pid", rec.Process.PID)...)
	case (before == Created || before == Running) && after == Exited:
		args := l.name(c)
		args = append(args, "reason", rec.Exit.Reason, "exit_code", rec.Exit.Code)
		if rec.Exit.Signal != 0 {
			args = append(args, "signal", rec.Exit.Signal)
		}
		if rec.Exit.Message != "" && rec.Exit.Reason != "StartError" { // the failed request has it
			args = append(args, "error", rec.Exit.Message)
		}
		l.log.Info("container ended", append(args, "lasted", since(rec.Times.Started, rec.Times.Finished))...)
	}
}

func (l life) containerRemoved(c *Container) {
	if c.announced {
		l.log.Info("container removed", l.name(c)...)
	}
}

func (l life) name(c *Container) []any {
	of := []any{"pod_id", c.Sandbox}
	if box, err := l.book.Sandbox(c.Sandbox); err == nil {
		of = LogPod(box.Record().Config.GetMetadata(), box.ID)
	}
	return LogContainer(c.Record().Config.GetMetadata(), of, c.ID)
}

// since is the time between two points, never negative: clocks may be set back.
func since(from, to time.Time) time.Duration { return max(0, to.Sub(from)).Round(time.Millisecond) }
