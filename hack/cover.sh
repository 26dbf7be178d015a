#!/usr/bin/env bash
# `make cover`: cover.sh PACKAGES...: the coverage of the tests that need no root. Prints one number for each package,
# lowest first, and the whole; writes build/cover/unit.html, which shows the lines. COVER_FLAGS= (empty) and root
# count the tests that need root, too.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p build/cover
profile=build/cover/unit.out
# shellcheck disable=SC2086 # several flags
go test ${COVER_FLAGS--short} -coverprofile="$profile" "$@" >build/cover/unit.log || {
	grep -v -e '^ok' -e 'coverage: 0.0%' build/cover/unit.log >&2
	exit 1
}
module=$(go list -m)
sed -n "s|.*$module/\([^[:space:]]*\).*coverage: \([0-9.]*\)% of statements.*|\2 \1|p" build/cover/unit.log |
	sort -n | awk '{printf "  %5.1f %%  %s\n", $1, $2}'
go tool cover -html="$profile" -o build/cover/unit.html
printf '  %5.1f %%  %s\n' "$(go tool cover -func="$profile" | sed -n 's/^total:.*[^0-9.]\([0-9.]*\)%$/\1/p')" 'of all statements (lines: build/cover/unit.html)'
