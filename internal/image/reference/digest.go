package reference

import (
	_ "crypto/sha512" // go-digest supports the algorithms that are linked
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// FileName writes a valid digest as a part of file names: sha256 without its name, others with it.
func FileName(dgst string) string {
	d := digest.Digest(dgst)
	if d.Algorithm() == digest.SHA256 {
		return d.Encoded()
	}
	return d.Algorithm().String() + "-" + d.Encoded()
}

// FromFileName is the reverse of fileName. Its result may be invalid.
func FromFileName(name string) string {
	if algorithm, hex, ok := strings.Cut(name, "-"); ok {
		return algorithm + ":" + hex
	}
	return digest.NewDigestFromEncoded(digest.SHA256, name).String()
}

// CheckDigest accepts the algorithms of the OCI image specification. File names are made of these
// digests.
func CheckDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("digest %.200q: %w", string(d), err)
	}
	switch d.Algorithm() {
	case digest.SHA256, digest.SHA384, digest.SHA512:
		return nil
	}
	return fmt.Errorf("digest %.200q: algorithm is not supported", string(d))
}
