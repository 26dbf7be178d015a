package session

import "sync/atomic"

// budget is memory that many share, in bytes.
type budget struct {
	limit int64
	used  atomic.Int64
}

// take takes n bytes. It takes none and returns false if fewer are left.
func (b *budget) take(n int) bool {
	if b.used.Add(int64(n)) > b.limit {
		b.used.Add(-int64(n))
		return false
	}
	return true
}

// give returns n bytes.
func (b *budget) give(n int) { b.used.Add(-int64(n)) }
