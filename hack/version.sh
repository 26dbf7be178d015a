#!/usr/bin/env bash
# Prints the version of the tree in the current directory, from its newest tag v1.2.3 or, without
# one, from its commit. It is always a semantic version (semver.org): the kubelet reads it.
set -euo pipefail

if described=$(git describe --tags --match 'v[0-9]*.[0-9]*.[0-9]*' --dirty 2>/dev/null); then
	echo "${described#v}"
elif commit=$(git describe --always --exclude '*' --dirty 2>/dev/null); then
	# The letter is needed: a number must not begin with a zero.
	echo "0.0.0-g$commit"
else
	echo 0.0.0-unknown
fi
