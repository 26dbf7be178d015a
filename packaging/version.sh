#!/usr/bin/env bash
# version.sh [VERSION]: prints the version of packages for a semantic version (default: hack/version.sh), so that
# dpkg and rpm order packages as the commits are ordered:
#
#   1.2.3-rc.1     1.2.3~rc.1        before 1.2.3
#   1.2.3-5-gabc   1.2.3+5.gabc      five commits after 1.2.3
#   1.2.3-dirty    1.2.3+0.dirty     1.2.3 with changes that are not committed
#   0.0.0-gabc     0.0.0~20261201T120000.gabc   no tag: the time of the commit orders them
set -euo pipefail

version=${1:-$(hack/version.sh)}
dirty=''
if [[ $version == *-dirty ]]; then
	dirty=.dirty version=${version%-dirty}
fi
if [[ $version =~ ^0\.0\.0-(g[0-9a-f]+|unknown)$ ]]; then
	when=$(TZ=UTC git log -1 --format=%cd --date=format-local:%Y%m%dT%H%M%S 2>/dev/null || echo 0)
	echo "0.0.0~$when.${BASH_REMATCH[1]}$dirty"
	exit
fi
after=''
if [[ $version =~ ^(.*)-([0-9]+)-(g[0-9a-f]+)$ ]]; then
	version=${BASH_REMATCH[1]} after=+${BASH_REMATCH[2]}.${BASH_REMATCH[3]}
elif [[ $dirty ]]; then
	after=+0
fi
# A dash begins a pre-release. In its name, a dash would separate the package's revision.
if [[ $version == *-* ]]; then
	pre=${version#*-}
	version=${version%%-*}~${pre//-/.}
fi
echo "$version$after$dirty"
