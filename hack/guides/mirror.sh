#!/usr/bin/env bash
# mirror.sh: in the VM, carries docs/guides/mirror.md out, with a registry on loopback that has one image.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=hack/guides/machine.sh
source hack/guides/machine.sh
fresh_machine
cp contrib/cni/10-pinfold.conflist /etc/cni/net.d/
"$PINFOLD_E2E_BIN/busybox-image" -name docker.io/library/busybox:mirrored -o /root/busybox.tar
"$PINFOLD_E2E_BIN/server" -address 127.0.0.1:5000 < <(exec sleep infinity) >/root/registry.out &
until curl -sSf http://127.0.0.1:5000/v2/ >/dev/null 2>&1; do sleep 0.1; done
hack/guides/push.sh /root/busybox.tar http://127.0.0.1:5000 library/busybox mirrored
systemctl start pinfold
hack/guides/run.sh docs/guides/mirror.md
stop_and_look
