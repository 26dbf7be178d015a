package keeper

import (
	"github.com/pinfold-run/pinfold/internal/pinder/logpump"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// Request runs a request about containers and execs. known is false for any other one.
func (k *Keeper) Request(m wire.Message) (body any, fds []int, known bool, err error) {
	switch m.Type {
	case wire.TypeCreate:
		body, err = decoded(m, k.create)
	case wire.TypeStart:
		_, err = decoded(m, noResult(k.start))
	case wire.TypeSignal:
		_, err = decoded(m, noResult(k.signal))
	case wire.TypeKillAll:
		_, err = decoded(m, noResult(k.killAll))
	case wire.TypeDelete:
		_, err = decoded(m, noResult(k.delete))
	case wire.TypeKillExec:
		_, err = decoded(m, noResult(k.execs.kill))
	case wire.TypeAttach:
		var d *descriptors
		if d, err = decoded(m, k.attach); err == nil {
			return wire.Attached{Streams: d.names}, d.fds, true, nil
		}
	case wire.TypeForget:
		_, err = decoded(m, noResult(k.execs.forget))
	case wire.TypeReopenLog:
		_, err = decoded(m, noResult(k.reopenLog))
	case wire.TypeUpdate:
		_, err = decoded(m, noResult(k.updateResources))
	case wire.TypeCheckpoint:
		_, err = decoded(m, noResult(k.checkpoint))
	case wire.TypeResize:
		_, err = decoded(m, noResult(k.resize))
	case wire.TypeCounters:
		body = counters()
	case wire.TypeList:
		body = k.list()
	case wire.TypeOffer:
		body, err = decoded(m, k.missing)
	case wire.TypeAdopt:
		body, err = decoded(m, k.adopt)
	default:
		return nil, nil, false, nil
	}
	return body, nil, true, err
}

// Exec runs a request for an exec. The descriptors are those that the answer names, and the caller's to close. abandon kills
// and removes the exec: it is for an answer that does not reach the daemon, since then the exec's streams have no other
// end.
func (k *Keeper) Exec(m wire.Message) (started wire.ExecStarted, fds []int, abandon func(), err error) {
	var r wire.Exec
	if err := m.Decode(&r); err != nil {
		return started, nil, nil, err
	}
	got, err := k.execs.start(r)
	if err != nil {
		return started, nil, nil, err
	}
	return got.ExecStarted, got.fds, func() { k.execs.abandon(r.ID, r.ExecID) }, nil
}

func counters() wire.Counters {
	n := logpump.Count()
	return wire.Counters{LogBytes: n.Bytes, LogLostBytes: n.LostBytes, LogGaps: n.Gaps, ReadersCut: n.ReadersCut}
}

func decoded[Req, Res any](m wire.Message, f func(Req) (Res, error)) (Res, error) {
	var req Req
	if err := m.Decode(&req); err != nil {
		var none Res
		return none, err
	}
	return f(req)
}

func noResult[Req any](f func(Req) error) func(Req) (struct{}, error) {
	return func(r Req) (struct{}, error) { return struct{}{}, f(r) }
}
