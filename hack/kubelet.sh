#!/usr/bin/env bash
# kubelet.sh DIRECTORY: builds the kubelet of hack/versions.env from the Go module proxy and puts it into a
# directory. It takes minutes, and gigabytes in the build cache.
#
# Kubernetes' own module expects its parts in a directory that the module's archive does not have. They are also
# published as modules, v0.N for v1.N; this script uses those.
set -euo pipefail
# shellcheck source=hack/versions.env
source "$(dirname "$0")/versions.env"
into=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export GOFLAGS=-mod=mod CGO_ENABLED=0

source=$(cd / && go mod download -json "k8s.io/kubernetes@$KUBELET_VERSION" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
[[ $source ]] || { echo "the Go module proxy does not have k8s.io/kubernetes $KUBELET_VERSION" >&2; exit 1; }
{
	printf 'module kubelet\ngo 1.26\nrequire k8s.io/kubernetes %s\nreplace (\n' "$KUBELET_VERSION"
	awk -v version="v0.${KUBELET_VERSION#v1.}" '$2 == "=>" && $3 ~ /^.\/staging/ {print $1, "=>", $1, version}' "$source/go.mod"
	echo ')'
} >go.mod
cat >main.go <<'GO'
package main

import (
	"context"
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kubelet/app"
)

func main() { os.Exit(cli.Run(app.NewKubeletCommand(context.Background()))) }
GO
go mod tidy
go build -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$KUBELET_VERSION" -o kubelet .
install -D kubelet "$into/kubelet"
