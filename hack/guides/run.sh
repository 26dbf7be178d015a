#!/usr/bin/env bash
# run.sh GUIDE: carries a guide out as it is written. It runs every block of shell commands ("```sh") in the order of the
# text, in one shell that ends at the first command that fails, and writes every file that a block of another kind
# names in its first line as "# FILE". Blocks of output ("```text") are for readers only.
set -euo pipefail
guide=$1
script=$(mktemp)
trap 'rm -f "$script"' EXIT
awk '
	/^```[a-z]+$/ && !kind { kind = substr($0, 4); first = 1; next }
	/^```$/ {
		if (file) print "PINFOLD_GUIDE_END"
		kind = file = ""
		next
	}
	kind == "sh" { print }
	kind != "" && kind != "sh" && kind != "text" {
		if (first && $1 == "#" && $2 ~ /^\// && NF == 2) {
			file = $2
			printf "mkdir -p \"$(dirname %s)\"\ncat >%s <<\"PINFOLD_GUIDE_END\"\n", file, file
		} else if (file) print
		first = 0
	}
' "$guide" >"$script"
[[ -s $script ]] || { echo "guide: $guide has no commands" >&2; exit 2; }
PS4='$ '
exec bash -euxo pipefail "$script"
