#!/usr/bin/env bash
# Puts the tools for building, testing and showing Pinfold into build/tools:
#
#   hack/tools.sh run    what `make demo` and `make test` need: Debian packages,
#                        runc (with seccomp) and the CNI plugins
#   hack/tools.sh lint   what `make lint` needs: gofumpt and golangci-lint
#   hack/tools.sh vuln   what `make vuln` needs: govulncheck
#   hack/tools.sh debug  what `make debug` needs: delve
#   hack/tools.sh crun   crun, for `make test-crun`
#   hack/tools.sh generate
#                        what `make generate` needs: buf and two plugins
#   hack/tools.sh packages
#                        what `make packages` needs: nfpm
#   hack/tools.sh kubelet
#                        a kubelet, for `make test-kubelet`
#   hack/tools.sh crictl   crictl, for the guides
#   hack/tools.sh peers    containerd, for `make bench`
#   hack/tools.sh kubernetes
#                        kubeadm, the control plane and their images, for `make test-guides`
#
# "run" also builds crun, if it can be built and works here. Without crun the tests
# that need it are skipped.
#
# If every tool has the version in hack/versions.env, it does nothing and needs no
# network. The version is read from each binary: a stamp file could be wrong.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=hack/versions.env
source hack/versions.env

tools=$PWD/build/tools
# What must be on the machine, as "command:package"; a file is given by its path.
debian_needs=(
	gcc:gcc
	pkg-config:pkg-config
	/usr/include/seccomp.h:libseccomp-dev
	iptables:iptables
	ip:iproute2
	ping:iputils-ping
	git:git
)

die() { printf 'tools: %s\n' "$*" >&2; exit 1; }

# step TEXT COMMAND...: runs a command that may take long, and prints TEXT and how
# long it took. The command's output is shown only if it fails.
step() {
	local text=$1 log started=$SECONDS
	shift
	log=$(mktemp)
	printf 'tools: %s ... ' "$text"
	if "$@" >"$log" 2>&1; then
		printf 'done (%ds)\n' $((SECONDS - started))
		rm -f "$log"
		return
	fi
	printf 'FAILED\n'
	cat "$log" >&2
	rm -f "$log"
	exit 1
}

present() {
	case $1 in
	/*) [[ -e $1 ]] ;;
	*) PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ;;
	esac
}

# Inside an image only a static busybox works.
static_busybox() {
	[[ -x /bin/busybox ]] && ! ldd /bin/busybox >/dev/null 2>&1
}

debian() {
	local need missing=()
	for need in "${debian_needs[@]}"; do
		present "${need%%:*}" || missing+=("${need##*:}")
	done
	static_busybox || missing+=(busybox-static)
	((${#missing[@]})) || return 0

	command -v apt-get >/dev/null ||
		die "missing here, and this is not a Debian machine; install what your system calls: ${missing[*]}"
	[[ $(id -u) == 0 ]] ||
		die "missing: ${missing[*]}; run as root, or: apt-get install ${missing[*]}"
	step "apt-get install ${missing[*]}" apt_install "${missing[@]}"
}

# A new machine has no package lists, or old ones. Only then fetch them.
apt_install() {
	export DEBIAN_FRONTEND=noninteractive
	apt-get install -y --no-install-recommends "$@" && return
	apt-get update && apt-get install -y --no-install-recommends "$@"
}

# built BINARY VERSION: true if the binary is there and was built from that
# version of its module.
built() {
	[[ -x $1 ]] && go version -m "$1" 2>/dev/null | grep -qE "^[[:space:]]mod[[:space:]][^[:space:]]+[[:space:]]$2[[:space:]]"
}

# get CGO DIR MODULE/PATH VERSION [go install flags]: builds one command.
# It ignores the repository's go.mod and the caller's GOFLAGS.
get() {
	local cgo=$1 dir=$2 pkg=$3 version=$4
	shift 4
	mkdir -p "$dir"
	(cd / && CGO_ENABLED=$cgo GOFLAGS=-buildvcs=false GOBIN=$dir go install -trimpath "$@" "$pkg@$version")
}

run_tools() {
	local plugin name
	debian
	built "$tools/runc" "$RUNC_VERSION" ||
		step "building runc $RUNC_VERSION (with seccomp)" \
			get 1 "$tools" github.com/opencontainers/runc "$RUNC_VERSION" -tags seccomp
	for plugin in $CNI_PLUGINS; do
		name=${plugin##*/}
		built "$tools/cni/$name" "$CNI_PLUGINS_VERSION" ||
			step "building the CNI plugin $name $CNI_PLUGINS_VERSION" \
				get 0 "$tools/cni" "github.com/containernetworking/plugins/plugins/$plugin" "$CNI_PLUGINS_VERSION"
	done
	optional_crun
}

# It is not built from a module; it prints its own version.
crun_built() { [[ $("$tools/crun" --version 2>/dev/null | head -n1) == "crun version $CRUN_VERSION" ]]; }

crun() { crun_built || step "building crun $CRUN_VERSION" hack/crun.sh "$tools"; }

kubelet() {
	[[ $("$tools/kubelet" --version 2>/dev/null) == "Kubernetes $KUBELET_VERSION" ]] ||
		step "building the kubelet $KUBELET_VERSION (takes many minutes)" hack/kubernetes.sh "$tools" kubelet
	peers # what it shows with Pinfold is compared with what it shows with containerd
}

peers() {
	local name
	for name in containerd containerd-shim-runc-v2 ctr; do
		built "$tools/containerd/$name" "$CONTAINERD_VERSION" ||
			step "building $name $CONTAINERD_VERSION" get 0 "$tools/containerd" "github.com/containerd/containerd/v2/cmd/$name" "$CONTAINERD_VERSION"
	done
}

crictl() {
	built "$tools/crictl" "$CRI_TOOLS_VERSION" ||
		step "building crictl $CRI_TOOLS_VERSION" get 0 "$tools" sigs.k8s.io/cri-tools/cmd/crictl "$CRI_TOOLS_VERSION"
}

# The parts of a whole cluster of one node.
kubernetes() {
	local command missing=()
	for command in kubelet kubeadm kubectl kube-apiserver kube-controller-manager kube-scheduler kube-proxy etcd coredns; do
		[[ -x $tools/kubernetes/$command ]] || missing+=("$command")
	done
	((${#missing[@]} == 0)) ||
		step "building ${missing[*]} (takes many minutes)" hack/kubernetes.sh "$tools/kubernetes" "${missing[@]}"
	[[ -e $tools/kubernetes/images/pod.tar ]] || step "making images of them" hack/guides/images.sh "$tools/kubernetes"
}

# crun does not work if cgroup v1 and v2 are mixed and v2 has controllers.
crun_refuses() { [[ $(cat /sys/fs/cgroup/unified/cgroup.controllers 2>/dev/null) ]]; }

# optional_crun never fails. It does not wait for a mirror longer than the build takes.
optional_crun() {
	local log started=$SECONDS
	! crun_built || return 0
	if crun_refuses; then
		printf 'tools: the tests with crun are skipped: it does not work on hybrid cgroups where v2 has controllers (here: %s)\n' \
			"$(</sys/fs/cgroup/unified/cgroup.controllers)"
		return 0
	fi
	log=$(mktemp)
	if timeout 240 hack/crun.sh "$tools" >"$log" 2>&1; then
		printf 'tools: building crun %s ... done (%ds)\n' "$CRUN_VERSION" $((SECONDS - started))
	else
		printf 'tools: the tests with crun are skipped: it could not be built: %s\n' "$(tail -n1 "$log")"
	fi
	rm -f "$log"
}

lint_tools() {
	built "$tools/gofumpt" "$GOFUMPT_VERSION" ||
		step "building gofumpt $GOFUMPT_VERSION" get 0 "$tools" mvdan.cc/gofumpt "$GOFUMPT_VERSION"
	built "$tools/golangci-lint" "$GOLANGCI_LINT_VERSION" ||
		step "building golangci-lint $GOLANGCI_LINT_VERSION (takes minutes)" \
			get 0 "$tools" github.com/golangci/golangci-lint/v2/cmd/golangci-lint "$GOLANGCI_LINT_VERSION"
}

generate_tools() {
	built "$tools/buf" "$BUF_VERSION" ||
		step "building buf $BUF_VERSION (takes minutes)" get 0 "$tools" github.com/bufbuild/buf/cmd/buf "$BUF_VERSION"
	built "$tools/protoc-gen-go" "$PROTOC_GEN_GO_VERSION" ||
		step "building protoc-gen-go $PROTOC_GEN_GO_VERSION" \
			get 0 "$tools" google.golang.org/protobuf/cmd/protoc-gen-go "$PROTOC_GEN_GO_VERSION"
	built "$tools/protoc-gen-go-grpc" "$PROTOC_GEN_GO_GRPC_VERSION" ||
		step "building protoc-gen-go-grpc $PROTOC_GEN_GO_GRPC_VERSION" \
			get 0 "$tools" google.golang.org/grpc/cmd/protoc-gen-go-grpc "$PROTOC_GEN_GO_GRPC_VERSION"
}

vuln_tools() {
	built "$tools/govulncheck" "$GOVULNCHECK_VERSION" ||
		step "building govulncheck $GOVULNCHECK_VERSION" \
			get 0 "$tools" golang.org/x/vuln/cmd/govulncheck "$GOVULNCHECK_VERSION"
}

packages_tools() {
	built "$tools/nfpm" "$NFPM_VERSION" ||
		step "building nfpm $NFPM_VERSION" get 0 "$tools" github.com/goreleaser/nfpm/v2/cmd/nfpm "$NFPM_VERSION"
}

debug_tools() {
	built "$tools/dlv" "$DELVE_VERSION" ||
		step "building delve $DELVE_VERSION (takes minutes)" get 0 "$tools" github.com/go-delve/delve/cmd/dlv "$DELVE_VERSION"
}

command -v go >/dev/null || die "no go command in PATH; Pinfold needs Go $(sed -n 's/^go //p' go.mod) or newer (https://go.dev/dl)"
case ${1:-} in
run) run_tools ;;
lint) lint_tools ;;
vuln) vuln_tools ;;
debug) debug_tools ;;
crun) crun ;;
generate) generate_tools ;;
packages) packages_tools ;;
kubelet) kubelet ;;
crictl) crictl ;;
peers) peers ;;
kubernetes) kubernetes ;;
*) die "usage: hack/tools.sh run|lint|vuln|debug|crun|generate|packages|kubelet|kubernetes|crictl|peers" ;;
esac
