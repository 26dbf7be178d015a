#!/usr/bin/env bash
# air-gapped.sh: in the VM, carries docs/guides/air-gapped.md out, with two archives.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=hack/guides/machine.sh
source hack/guides/machine.sh
fresh_machine
cp contrib/cni/10-pinfold.conflist /etc/cni/net.d/
mkdir -p /root/images
"$PINFOLD_E2E_BIN/busybox-image" -name docker.io/library/busybox:latest -o /root/images/busybox.tar
"$PINFOLD_E2E_BIN/busybox-image" -name registry.k8s.io/kube-proxy:v1.37.0 -o /root/images/kube-proxy.tar
systemctl start pinfold
hack/guides/run.sh docs/guides/air-gapped.md
stop_and_look
