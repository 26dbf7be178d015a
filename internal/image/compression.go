package image

import (
	"bufio"
	"bytes"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/pkg/archive/compression"
)

// foreignFormats are the beginnings of files that users take for archives of images and that no reader here knows.
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

// decompress returns the tar within r, which is plain or compressed with gzip or zstd. What begins like something
// else that is known by name is an error that names it: read as a tar it would only be an invalid one.
func decompress(r io.Reader) (compression.DecompressReadCloser, error) {
	buffered := bufio.NewReader(r)
	begin, err := buffered.Peek(16)
	if err != nil && len(begin) == 0 && err != io.EOF {
		return nil, err
	}
	for _, f := range foreignFormats {
		if bytes.HasPrefix(begin, []byte(f.magic)) {
			return nil, fmt.Errorf("it is %s; a tar, plain or compressed with gzip or zstd, can be read", f.name)
		}
	}
	return compression.DecompressStream(buffered)
}
