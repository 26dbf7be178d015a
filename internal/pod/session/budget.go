package session

import "sync/atomic"

// budget is memory that many share, in bytes.
type budget struct {
	limit int64
	used  atomic.Int64
}

// take says whether n more bytes may be used.
func (b *budget) take(n int) bool {
	if b.used.Add(int64(n)) > b.limit {
		b.used.Add(-int64(n))
		return false
	}
	return true
}

func (b *budget) give(n int) { b.used.Add(-int64(n)) }
