#!/usr/bin/env bash
# `make test-vm`: builds the tests and the programs here and runs them in the VM (see boot.sh), where the
# kernel is older and cgroup v2 is pure.
#
#   test.sh [PART[=PATTERN]]…
#
#   minimal    the end-to-end tests, without systemd, cgroup driver cgroupfs
#   systemd    the end-to-end tests, systemd as process 1, cgroup driver systemd
#   crun       as minimal, with crun instead of runc, which does not work on the hybrid cgroups of CI's
#              machines; skipped if it is not in build/tools
#   kubelet    a real kubelet (build/tools/kubelet) runs its pods, twice: with CRI's statistics and with cAdvisor's; only when named
#   packages   the tests of the packages that talk to the kernel themselves
#   guides     carries out guides of docs/guides; the pattern names them; only when named
#   install    the life of the packages that `make packages` builds, with systemd: deb, then rpm; only when named.
#              The pattern chooses: deb or rpm
#
# Without an argument it runs all parts except kubelet, guides and install. A pattern, or $PINFOLD_VM_RUN, chooses tests as go test's -run
# does. Without it all tests run except the crash matrix and the soak: they take hours here, and the kernel does not matter
# for them. $PINFOLD_VM_TIMEOUT is the time limit of one VM, in seconds.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=hack/vm/place.env
source hack/vm/place.env
repo=$PWD
# Of this run alone: another one may be under way.
mkdir -p "$VM"
bin=$(mktemp -d "$VM/test.XXXXXX")
chmod 0755 "$bin"
packages=(pin internal/kernel/proc internal/kernel/cgroup internal/network internal/pinder/reaper internal/pinder/oci internal/pinder/logpump internal/pinder/keeper internal/rootfs internal/pinder/client internal/pinder/pair)
# The guest is three to ten times slower than this machine.
export PINFOLD_TEST_SLOW=${PINFOLD_TEST_SLOW:-8}
limit=${PINFOLD_VM_TIMEOUT:-3600}
# The tests' limit is shorter than the VM's, so that they report where they hang.
test_limit=$((limit > 120 ? limit - 60 : limit))s

build() {
	local package
	export CGO_ENABLED=0
	go build -tags failpoints -o "$bin/" ./cmd/... ./e2e/testdata/puppet
	go build -C internal/testregistry/server -o "$bin/server" .
	go build -C internal/testkubectl/client -o "$bin/client" .
	for package in e2e "${packages[@]}"; do
		go test -c -o "$bin/${package//\//-}.test" "./$package"
	done
}

# in_guest DIRECTORY COMMAND: prints the command for the guest's shell, with the variables that the tests read.
in_guest() {
	printf 'cd %q; ' "$1"
	printf 'export PINFOLD_RUNC=%q PINFOLD_CNI_BIN=%q PINFOLD_TEST_SLOW=%q PINFOLD_CGROUP_DRIVER=%q PINFOLD_OCI_RUNTIME=%q; ' \
		"${PINFOLD_RUNC:-$repo/build/tools/runc}" "${PINFOLD_CNI_BIN:-$repo/build/tools/cni}" "$PINFOLD_TEST_SLOW" "${driver:-}" "${PINFOLD_OCI_RUNTIME:-}"
	printf 'export PINFOLD_E2E_BIN=%q PINFOLD_PINDER=%q; ' "$bin" "$bin/pinder"
	printf '%s\n' "$2"
}

# boot is boot.sh in the background, so that a signal to this script ends the VM.
child=''
trap '[[ ! $child ]] || kill "$child" || true; wait; exit 130' INT TERM HUP
trap 'rm -rf "$bin"' EXIT
boot() {
	hack/vm/boot.sh -t "$limit" "$@" &
	child=$!
	wait "$child"
}

with_crun() {
	local PINFOLD_OCI_RUNTIME=crun
	end_to_end cgroupfs "$1"
}

# end_to_end DRIVER PATTERN [OPTION OF boot.sh]. Tests that fail run once more, without the others: on an emulated
# processor some things take ten times as long, and others do not.
end_to_end() {
	local driver=$1 pattern=$2 output pipe tee status=0 test="$bin/e2e.test -test.timeout=$test_limit -test.v "
	shift 2
	local chosen="-test.skip='^Test(CrashMatrix|Soak)'"
	[[ ! $pattern ]] || chosen="-test.run=$(printf %q "$pattern")"
	output=$(mktemp)
	exec {pipe}> >(tee "$output")
	tee=$!
	boot "$@" "$(in_guest "$repo/e2e" "$test $chosen")" >&"$pipe" || status=$?
	exec {pipe}>&-
	wait "$tee" || true
	pattern=$(sed -n 's/^--- FAIL: \(Test[A-Za-z0-9_]*\).*/\1/p' "$output" | paste -sd '|')
	rm -f "$output"
	((status)) && [[ $pattern ]] || return "$status"
	echo "vm: these failed and run once more: $pattern"
	boot "$@" "$(in_guest "$repo/e2e" "$test -test.run=$(printf %q "^($pattern)\$")")"
}

# with_kubelet: with the gate, then with default gates and containerd's API, compared with containerd itself.
with_kubelet() {
	local driver='' test="$bin/e2e.test -test.timeout=$test_limit -test.v"
	local kubelet="export PINFOLD_KUBELET=$repo/build/tools/kubelet PINFOLD_CONTAINERD=$repo/build/tools/containerd"
	boot "$(in_guest "$repo/e2e" "$kubelet; $test -test.run=^TestARealKubelet")"
	driver=systemd
	boot -s "$(in_guest "$repo/e2e" "$kubelet; $test -test.run=^TestAKubeletWithDefaultGates")"
}

# guides NAME…: each in a new VM with systemd.
guides() {
	local name
	CGO_ENABLED=0 go build -o "$bin/" ./hack/busybox-image
	for name in "$@"; do
		echo "vm: guide $name"
		PINFOLD_VM_MEMORY=6G boot -s "$(in_guest "$repo" "exec hack/guides/$name.sh")" || return
	done
}

kernel_packages() {
	local driver='' package script='failed=0; ' run=''
	[[ ! $1 ]] || run="-test.v -test.run=$(printf %q "$1")"
	for package in "${packages[@]}"; do
		script+="cd $repo/$package && echo '== $package' && $bin/${package//\//-}.test -test.timeout=$test_limit $run || failed=1; "
	done
	boot "$(in_guest "$repo" "$script exit \$failed")"
}

# with_packages KINDS: builds two versions of the packages and has them installed, upgraded and removed.
with_packages() {
	local kind version script='' packages=$bin/install
	hack/tools.sh packages
	mkdir -p "$packages"
	for version in 1.0.0 1.1.0; do
		VERSION=$version ARCHES=amd64 KINDS=${1:-deb rpm} OUT=$packages/$version packaging/build.sh
		find "$packages/$version" \( -name '*.deb' -o -name '*.rpm' \) -exec mv -t "$packages" {} +
	done
	go run ./hack/busybox-image -o "$packages/image.tar"
	cp -r "${PINFOLD_CNI_BIN:-build/tools/cni}" "$packages/cni"
	cp "${PINFOLD_RUNC:-build/tools/runc}" "$packages/runc"
	for kind in ${1:-deb rpm}; do script+="bash $repo/packaging/in-vm.sh $kind $packages && "; done
	boot -s "${script}true"
}

# run NAME COMMAND…: runs a part and prints its result and how long it took.
failed=()
run() {
	local name=$1 began=$SECONDS
	shift
	echo "vm: $name"
	if "$@"; then
		echo "vm: $name: ok ($((SECONDS - began)) s)"
	else
		echo "vm: $name: FAILED ($((SECONDS - began)) s)"
		failed+=("$name")
	fi
}

hack/vm/setup.sh
(($#)) || set -- minimal systemd crun packages
[[ "$*" == install* && $# == 1 ]] || build
for argument in "$@"; do
	part=${argument%%=*} pattern=${PINFOLD_VM_RUN:-}
	[[ $part == "$argument" ]] || pattern=${argument#*=}
	case $part in
	minimal) run "end-to-end, cgroupfs" end_to_end cgroupfs "$pattern" ;;
	systemd) run "end-to-end, systemd" end_to_end systemd "$pattern" -s ;;
	crun)
		if [[ -x build/tools/crun ]]; then
			run "end-to-end, crun" with_crun "$pattern"
		else
			echo "vm: no crun in build/tools (make tools-crun): its part is skipped"
		fi
		;;
	kubelet) run "a real kubelet" with_kubelet ;;
	# shellcheck disable=SC2086
	guides) run "guides" guides ${pattern:-air-gapped mirror crictl kubeadm} ;;
	packages) run "packages" kernel_packages "$pattern" ;;
	install) run "install, upgrade, remove" with_packages "$pattern" ;;
	*) echo "vm: there is no part $part" >&2 && exit 2 ;;
	esac
done
((${#failed[@]} == 0)) || { echo "vm: FAILED: ${failed[*]}" >&2; exit 1; }
echo "vm: ok, on kernel $(<"$VM/kernel-version")"
