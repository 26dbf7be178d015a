//go:build !amd64

package filter

// lastingToo are those that only this architecture has.
var lastingToo []int
