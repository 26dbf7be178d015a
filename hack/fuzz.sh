#!/usr/bin/env bash
# fuzz.sh [SECONDS] [NAME]: runs each fuzz test, or those whose name contains NAME, for SECONDS (60). It starts
# with the inputs in the package's testdata/fuzz, which every `go test` runs, too. It adds inputs that reach new
# code: the smallest first, up to a limit for each test.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60} wanted=${2:-}
# More would make the repository large and find little more.
most=25 largest=8000
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# keep FOUND KEPT: copies new inputs. The files' names are hashes of their content.
keep() {
	local file count
	mkdir -p "$2"
	count=$(find "$2" -type f | wc -l)
	while read -r file; do
		((count < most)) || break
		[[ ! -e $2/$file ]] || continue
		cp "$1/$file" "$2/"
		count=$((count + 1))
	done < <(cd "$1" && find . -type f -size "-${largest}c" -printf '%s %f\n' | sort -n | cut -d' ' -f2)
	echo "fuzz: ${2#./}: $count inputs kept"
}

failed=0
while IFS=: read -r file name; do
	package=$(dirname "$file")
	[[ $name == *"$wanted"* ]] || continue
	mkdir -p "$scratch/$name"
	go test -c -fuzz="^$name\$" -o "$scratch/test" "$package"
	(cd "$package" && "$scratch/test" -test.run='^$' -test.fuzz="^$name\$" -test.fuzztime="${seconds}s" -test.fuzzminimizetime=2s \
		-test.fuzzcachedir="$scratch/$name") || failed=1
	[[ -d $scratch/$name/$name ]] && found=$scratch/$name/$name || found=$scratch/$name
	keep "$found" "$package/testdata/fuzz/$name"
done < <(grep -roE --include='*_test.go' '^func Fuzz[A-Za-z]+' . | sed 's/func //' | sort)
exit $failed
