#!/usr/bin/env bash
# kubernetes.sh DIRECTORY COMMAND…: builds commands of Kubernetes, of the version in hack/versions.env, from the Go module
# proxy and puts them into a directory: kubelet, kubeadm, kubectl, kube-apiserver, kube-controller-manager, kube-scheduler,
# kube-proxy. etcd and coredns are built, too, when they are named. It takes minutes, and gigabytes in the build cache.
#
# Kubernetes' own module expects its parts in a directory that the module's archive does not have. They are also
# published as modules, v0.N for v1.N; this script uses those.
set -euo pipefail
# shellcheck source=hack/versions.env
source "$(dirname "$0")/versions.env"
into=$(realpath "$1")
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export GOFLAGS=-mod=mod CGO_ENABLED=0

# etcd's module, too, expects its parts in directories, so that go install refuses it.
etcd() {
	mkdir etcd
	cd etcd
	printf 'module etcd\ngo 1.26\nrequire go.etcd.io/etcd/server/v3 %s\n' "$ETCD_VERSION" >go.mod
	printf 'package etcd\n\nimport _ "go.etcd.io/etcd/server/v3/etcdmain"\n' >etcd.go
	go mod tidy
	go build -ldflags '-s -w' -o etcd go.etcd.io/etcd/server/v3
	install -D etcd "$into/etcd"
}

coredns() {
	cd /
	GOBIN=$work/bin go install -ldflags '-s -w' "github.com/coredns/coredns@$COREDNS_VERSION"
	install -D "$work/bin/coredns" "$into/coredns"
}

kubernetes=()
for command; do
	case $command in
	etcd | coredns) ("$command") ;;
	*) kubernetes+=("$command") ;;
	esac
done
((${#kubernetes[@]})) || exit 0

source=$(cd / && go mod download -json "k8s.io/kubernetes@$KUBELET_VERSION" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
[[ $source ]] || { echo "the Go module proxy does not have k8s.io/kubernetes $KUBELET_VERSION" >&2; exit 1; }
{
	printf 'module kubernetes\ngo 1.26\nrequire k8s.io/kubernetes %s\nreplace (\n' "$KUBELET_VERSION"
	awk -v version="v0.${KUBELET_VERSION#v1.}" '$2 == "=>" && $3 ~ /^.\/staging/ {print $1, "=>", $1, version}' "$source/go.mod"
	echo ')'
} >go.mod
{
	printf 'package commands\n\n'
	printf 'import _ "k8s.io/kubernetes/cmd/%s/app"\n' "${kubernetes[@]/kubectl/kubelet}"
	printf 'import _ "k8s.io/kubectl/pkg/cmd"\n'
} >commands.go
go mod tidy
minor=${KUBELET_VERSION#v1.}
version="-X k8s.io/component-base/version.gitVersion=$KUBELET_VERSION"
version+=" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=${minor%%.*}"
for command in "${kubernetes[@]}"; do
	go build -ldflags "-s -w $version" -o "$command" "k8s.io/kubernetes/cmd/$command"
	install -D "$command" "$into/$command"
done
