// Package tarfile opens tars that may be compressed: layers, and archives of images.
package tarfile

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/pkg/archive/compression"
)

// foreignFormats are the first bytes of files that users may take for archives of images, and that
// cannot be read here.
var foreignFormats = []struct{ magic, name string }{
	{"\xfd7zXZ\x00", "compressed with xz"},
	{"BZh", "compressed with bzip2"},
	{"\x04\x22\x4d\x18", "compressed with lz4"},
	{"LZIP", "compressed with lzip"},
	{"\x1f\x9d", "compressed with compress"},
	{"\x5d\x00\x00", "compressed with lzma"},
	{"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"},
	{"PK\x03\x04", "a ZIP archive"},
	{"hsqs", "a SquashFS file system"},
	{"QFI\xfb", "a qcow2 disk"},
	{"Salted__", "encrypted with OpenSSL"},
	{"-----BEGIN", "a PEM file"},
	{"<!DOCTYPE", "an HTML page"},
	{"<html", "an HTML page"},
}

// Open returns the tar in r, which is plain or compressed with gzip or zstd. If r begins like
// another known format, the error names that. Read as a tar it would only be "invalid".
func Open(r io.Reader) (compression.DecompressReadCloser, error) {
	buffered := bufio.NewReader(r)
	begin, err := buffered.Peek(16)
	if err != nil && len(begin) == 0 && err != io.EOF {
		return nil, err
	}
	for _, f := range foreignFormats {
		if bytes.HasPrefix(begin, []byte(f.magic)) {
			return nil, fmt.Errorf("it is %s; use a tar, plain or compressed with gzip or zstd", f.name)
		}
	}
	return compression.DecompressStream(buffered)
}

// WithContext returns a reader of r that ends with ctx.
func WithContext(ctx context.Context, r io.Reader) io.Reader { return contextReader{ctx, r} }

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
