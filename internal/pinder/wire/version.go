//go:build !nextprotocol

package wire

// Version is the protocol version of this release. It grows when a message
// changes its meaning; additions are capabilities and need no new version.
const Version = 1
