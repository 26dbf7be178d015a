package daemon

import (
	"context"
	"log/slog"
	"time"

	"github.com/pinfold-run/pinfold/internal/pod/session"
	"github.com/pinfold-run/pinfold/internal/stream"
)

// graceToSessions is how long clients' commands may take to end when the daemon stops. The kubelet has no runtime
// meanwhile, so it is short.
const graceToSessions = 5 * time.Second

// startStreams serves sessions. From the end of ctx on no new ones begin. closed waits for those that end by themselves,
// and cuts off the others.
func startStreams(ctx context.Context, sessions *session.Sessions, log *slog.Logger) (streams *stream.Server, closed func(), err error) {
	streams, err = stream.Start(log, sessions)
	if err != nil {
		return nil, nil, err
	}
	drained := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(drained)
		streams.Drain(graceToSessions)
	})
	return streams, func() {
		if !stop() {
			<-drained
		}
		_ = streams.Close()
	}, nil
}
