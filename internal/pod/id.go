package pod

import (
	"crypto/rand"
	"encoding/hex"
)

// idBytes is the size of IDs of pods and containers. Node agents know the ID of a container, in the
// name of a cgroup, by its 64 hexadecimal digits. Records of older versions have IDs of 16 bytes, so no code may ask for
// a length.
const idBytes = 32

// NewID returns the name of a new pod or container: 256 random bits in hexadecimal.
func NewID() string {
	if olderNames() {
		return random(16)
	}
	return random(idBytes)
}

// NewExecID returns the name of a new exec or of a client's session: 128 random bits in hexadecimal. It is shorter than a
// container's. The group of an exec is below its container's, and an agent that looks for 64 digits finds the container.
func NewExecID() string { return random(16) }

func random(bytes int) string {
	id := make([]byte, bytes)
	// crypto/rand.Read never fails (Go 1.24 and later).
	_, _ = rand.Read(id)
	return hex.EncodeToString(id)
}
