#!/usr/bin/env bash
# push.sh ARCHIVE BASE REPOSITORY TAG: pushes the one image of an OCI archive to a registry without TLS, by the registry's
# own protocol (two requests for a blob, one for the manifest).
set -euo pipefail
archive=$1 base=$2 repository=$3 tag=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -xf "$archive" -C "$work"
blobs=$work/blobs/sha256
manifest=$(grep -o '"sha256:[0-9a-f]*"' "$work/index.json" | head -n1 | tr -d '"')
grep -o 'sha256:[0-9a-f]*' "$blobs/${manifest#sha256:}" | sort -u | while read -r digest; do
	curl -sSf -X POST -H 'Content-Type: application/octet-stream' --data-binary "@$blobs/${digest#sha256:}" \
		"$base/v2/$repository/blobs/uploads/?digest=$digest"
done
curl -sSf -X PUT -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' --data-binary "@$blobs/${manifest#sha256:}" \
	"$base/v2/$repository/manifests/$tag"
