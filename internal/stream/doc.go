// Package stream serves what CRI's Exec, Attach and PortForward only announce: a URL on the loopback
// interface, good for one connection, over which the client's SPDY or WebSocket streams come. What runs behind
// them is package pod's.
//
// A request becomes a token of 256 random bits, the last element of its URL. A token is taken by the
// first connection that names it, and expires a minute after it was made. So the port needs no TLS and no
// other check: it is reachable from this node only, and a URL cannot be guessed or used twice.
//
// # Memory
//
// Every local user can connect. A connection is read up to its token, a few hundred bytes, before anything else
// is done for it (gate); what comes after a token costs the same whatever the client sends, because frames and
// messages of any length are taken in pieces, and a stream that is not read holds up its connection (spdyConn,
// channels, inbox). All bounds are in docs/limits.md.
//
// # When a session ends
//
// The context of a session ends with the client's TCP connection (see watchedConn), or when the client says that
// it goes. What is then done is package pod's matter.
package stream
