package logpump

import "testing"

func TestBytesOfLogsAndGapsAreCounted(t *testing.T) {
	before := Count()
	l := newLogged(t)
	l.write(t, "kept\n")
	l.Drain()
	l.Prepare(l.pipe, fullDisk{l.log})
	l.write(t, "lost 1\nlost 2\n")
	l.Drain()
	l.write(t, "lost 3\n") // the same gap
	l.Drain()
	after := Count()
	got := Totals{Bytes: after.Bytes - before.Bytes, LostBytes: after.LostBytes - before.LostBytes, Gaps: after.Gaps - before.Gaps}
	if want := (Totals{Bytes: 5, LostBytes: 21, Gaps: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
