#!/usr/bin/env bash
# `make vuln`: known vulnerabilities in the code that the three binaries call, by govulncheck.
#
#   vuln.sh [-optional]
#
# It asks the Go vulnerability database, or the one that VULNDB names (https://… or file://…). With -optional it
# does not fail if the database cannot be reached, but says so. CI uses that: its machines may reach only the
# module proxy.
set -euo pipefail
cd "$(dirname "$0")/.."
arguments=()
[[ ! ${VULNDB:-} ]] || arguments=(-db "$VULNDB")
status=0
output=$(build/tools/govulncheck "${arguments[@]}" ./cmd/... 2>&1) || status=$?
if ((status)) && [[ $output == *"fetching vulnerabilities"* ]]; then
	echo "vuln: SKIPPED, nothing was checked: $output" >&2
	[[ ${1:-} == -optional ]] && exit 0
	exit "$status"
fi
printf '%s\n' "$output"
((status == 0)) || { echo "vuln: FAILED" >&2 && exit "$status"; }
echo "vuln: ok"
