// Package stream serves the sessions of CRI's Exec, Attach and PortForward. CRI returns only a URL,
// on the loopback interface, for one connection. The client's SPDY or WebSocket streams come over
// it. Package pod runs what is behind them.
//
// A request becomes a token of 256 random bits, the last element of its URL. The first connection
// that names the token uses it up. It expires after a minute. So the port needs no TLS and no other
// check: only this node can reach it, and a URL cannot be guessed or used twice.
//
// # Memory
//
// Every local user can connect. Of a connection only the token is read, a few hundred bytes, before
// anything else is done for it (gate). After the token a session costs the same whatever the client
// sends: frames and messages of any length are read in pieces, and a stream that is not read blocks
// its connection (spdyConn, channels, inbox). docs/limits.md has all limits.
//
// # When a session ends
//
// The context of a session ends when the client's TCP connection ends (see watchedConn), or when
// the client says goodbye (GOAWAY). Package pod decides what follows.
package stream
