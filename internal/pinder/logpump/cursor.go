package logpump

import (
	"sync/atomic"
	"time"
)

// Cursor is where a Pump is in its work. It lies in memory that is shared with the Pump that follows in another
// process, and its layout never changes. Each field is written by one 8-byte store, so SIGKILL leaves every field
// either old or new; phase is stored last and says which fields hold:
//
//	idle      the private pipe is empty; current is true
//	intent    the private pipe holds bytes of source, or none yet; their records go to the log at offset, with stamp,
//	          and follow what current tells
//	commit    the records are in the log up to end; the private pipe is to be emptied, and next becomes current
type Cursor struct {
	phase   uint64
	source  uint64 // index of the stream
	offset  uint64
	end     uint64
	stamp   uint64 // Unix nanoseconds
	current gauges
	next    gauges
}

// gauges is what one log write leaves for the next.
type gauges struct {
	partial     uint64 // bit i: stream i's last record was a P piece
	lostBytes   uint64 // dropped since the last marker
	lostRecords uint64
	lostErrno   uint64 // why
}

const (
	phaseIdle = iota
	phaseIntent
	phaseCommit
)

func (g *gauges) load() gauges {
	return gauges{
		partial:     atomic.LoadUint64(&g.partial),
		lostBytes:   atomic.LoadUint64(&g.lostBytes),
		lostRecords: atomic.LoadUint64(&g.lostRecords),
		lostErrno:   atomic.LoadUint64(&g.lostErrno),
	}
}

func (g *gauges) store(v gauges) {
	atomic.StoreUint64(&g.partial, v.partial)
	atomic.StoreUint64(&g.lostBytes, v.lostBytes)
	atomic.StoreUint64(&g.lostRecords, v.lostRecords)
	atomic.StoreUint64(&g.lostErrno, v.lostErrno)
}

// LostBytes counts output that could not be written and is not yet marked in the log.
func (c *Cursor) LostBytes() uint64 { return c.current.load().lostBytes }

func (c *Cursor) at() time.Time { return time.Unix(0, int64(atomic.LoadUint64(&c.stamp))) }

func (c *Cursor) stream() int { return int(c.source) % len(streamNames) }

// intend notes where the next chunk's records go, before there is a chunk.
func (c *Cursor) intend(stream int, offset int64) {
	atomic.StoreUint64(&c.source, uint64(stream))
	atomic.StoreUint64(&c.offset, uint64(offset))
	atomic.StoreUint64(&c.stamp, uint64(time.Now().UnixNano()))
	atomic.StoreUint64(&c.phase, phaseIntent)
}

// commit notes that the records are in the log.
func (c *Cursor) commit(end int64, next gauges) {
	atomic.StoreUint64(&c.end, uint64(end))
	c.next.store(next)
	atomic.StoreUint64(&c.phase, phaseCommit)
}

// finish notes that the private pipe is empty again.
func (c *Cursor) finish() {
	c.current.store(c.next.load())
	atomic.StoreUint64(&c.phase, phaseIdle)
}

// withdraw takes an intent back of which nothing has come.
func (c *Cursor) withdraw() { atomic.StoreUint64(&c.phase, phaseIdle) }
