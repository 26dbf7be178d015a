#!/usr/bin/env bash
# images.sh DIRECTORY: makes archives of the images that kubeadm asks registry.k8s.io for, of the programs in DIRECTORY,
# and of one for pods. A machine without internet loads them (docs/guides/air-gapped.md).
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=hack/versions.env
source hack/versions.env
from=$(realpath "$1")
mkdir -p "$from/images"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
go build -o "$work/image" ./hack/busybox-image

# image NAME:TAG PROGRAM [OPTION…]
image() {
	local name=$1 program=$2
	shift 2
	# The layers of this form are not compressed: the VM is slow.
	"$work/image" -format docker -name "registry.k8s.io/$name" -file "$from/$program=/usr/bin/$program" "$@" -o "$from/images/$program.tar"
}

# with_libraries PROGRAM: -file options for a program of this machine and the libraries that it needs.
with_libraries() {
	local library
	printf '%s\n' -file "$(realpath "$1")=/usr/sbin/${1##*/}"
	while read -r library; do
		printf '%s\n' -file "$(realpath "$library")=$library"
	done < <(ldd "$1" | grep -o '/[^ ]*')
}

for program in kube-apiserver kube-controller-manager kube-scheduler; do
	image "$program:$KUBELET_VERSION" "$program"
done
image "etcd:$ETCD_IMAGE" etcd
image "coredns/coredns:$COREDNS_VERSION" coredns -entrypoint /usr/bin/coredns

# kube-proxy calls iptables.
mapfile -t iptables < <(with_libraries "$(PATH=$PATH:/usr/sbin command -v xtables-nft-multi)")
for name in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
	iptables+=(-link "/usr/sbin/$name=xtables-nft-multi")
done
image "kube-proxy:$KUBELET_VERSION" kube-proxy "${iptables[@]}" $(find /usr/lib/x86_64-linux-gnu/xtables -name '*.so' -printf '-file %p=%p ')

"$work/image" -name "registry.k8s.io/pause:$PAUSE_IMAGE" -o "$from/images/pause.tar"
"$work/image" -name docker.io/library/busybox:latest -o "$from/images/pod.tar"
