//go:build nextprotocol

package wire

// Version is that of a release to come: what the tests of upgrade and downgrade
// are built with.
const Version = 2
