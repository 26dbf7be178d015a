#!/usr/bin/env bash
# crictl.sh: in the VM, carries docs/guides/crictl.md out.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=hack/guides/machine.sh
source hack/guides/machine.sh
fresh_machine
cp contrib/cni/10-pinfold.conflist /etc/cni/net.d/
ln -sf "$PWD/build/tools/crictl" /usr/bin/
"$PINFOLD_E2E_BIN/busybox-image" -name docker.io/library/busybox:latest -o /root/busybox.tar
systemctl start pinfold
pinfold image load /root/busybox.tar
hack/guides/run.sh docs/guides/crictl.md
stop_and_look
