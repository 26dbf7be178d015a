// Package stream serves what CRI's Exec, Attach and PortForward only announce: a URL on the loopback
// interface, good for one connection, over which the client's SPDY or WebSocket streams come. The two
// protocols are k8s.io/cri-streaming's; what runs behind them is package pod's.
//
// A request becomes a token of 256 random bits, the last element of its URL. A token is taken by the
// first connection that names it, and expires a minute after it was made. So the port needs no TLS and no
// other check: it is reachable from this node only, and a URL cannot be guessed or used twice.
//
// # When a session ends
//
// The context of a session ends with the client's TCP connection, whatever the client was doing (see
// watchedConn): the library would notice only at its next write. What is then done is package pod's matter.
package stream
