#!/usr/bin/env bash
# `make lint`: format, vet on both architectures, lint. Runs every check even
# when an earlier one failed, so that one run shows all there is to mend.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=build/tools
failed=()

check() {
	local name=$1
	shift
	if "$@"; then
		return
	fi
	failed+=("$name")
}

# gofumpt lists the files it would change and exits 0 all the same.
formatted() {
	local files
	files=$("$tools/gofumpt" -l .) || return 1
	[[ -z $files ]] && return
	printf 'not formatted by gofumpt:\n%s\n' "$files" >&2
	return 1
}

in_testregistry() { (cd internal/testregistry/server && "$@"); }
in_testkubectl() { (cd internal/testkubectl/client && "$@"); }

check gofumpt formatted
check vet-amd64 env GOARCH=amd64 CGO_ENABLED=0 go vet ./...
check vet-arm64 env GOARCH=arm64 CGO_ENABLED=0 go vet ./...
check golangci-lint "$tools/golangci-lint" run --show-stats=false ./...
# The registry and the client of the tests are modules of their own.
check vet-testregistry go vet -C internal/testregistry/server ./...
check golangci-lint-testregistry in_testregistry "$PWD/$tools/golangci-lint" run --show-stats=false --config "$PWD/.golangci.yml" ./...
check vet-testkubectl go vet -C internal/testkubectl/client ./...
check golangci-lint-testkubectl in_testkubectl "$PWD/$tools/golangci-lint" run --show-stats=false --config "$PWD/.golangci.yml" ./...

if ((${#failed[@]})); then
	printf 'lint: FAILED: %s\n' "${failed[*]}" >&2
	exit 1
fi
echo "lint: ok (gofumpt, vet on amd64 and arm64, golangci-lint)"
