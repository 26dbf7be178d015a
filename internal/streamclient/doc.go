// Package streamclient is the client's end of CRI's Exec, Attach and PortForward. Given the URL that the call has
// returned, it runs one session over a WebSocket (v5.channel.k8s.io; package stream is the other end).
//
// A session that ends without the server's word for how it ended is an error, also when the connection was closed in an
// orderly way. Output of any size is delivered in pieces of at most maxPiece: a reader that is slow slows down the
// command, and no byte is lost or kept. Whatever a server sends costs no more than that (maxHandshake, maxStatus).
package streamclient
