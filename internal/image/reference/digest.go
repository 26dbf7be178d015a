package reference

import (
	_ "crypto/sha512" // go-digest knows the algorithms that are linked
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// FileName is how a valid digest is written in names of files: sha256 without its name, others with it.
func FileName(dgst string) string {
	d := digest.Digest(dgst)
	if d.Algorithm() == digest.SHA256 {
		return d.Encoded()
	}
	return d.Algorithm().String() + "-" + d.Encoded()
}

// FromFileName is the reverse. What it returns need not be valid.
func FromFileName(name string) string {
	if algorithm, hex, ok := strings.Cut(name, "-"); ok {
		return algorithm + ":" + hex
	}
	return digest.NewDigestFromEncoded(digest.SHA256, name).String()
}

// CheckDigest accepts the algorithms of the OCI image specification. Names of files are made of these digests.
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
