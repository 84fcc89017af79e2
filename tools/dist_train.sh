#!/usr/bin/env bash
# Train on several GPUs, or with several processes on CPU where there is no GPU.
#
#   bash tools/dist_train.sh CONFIG GPUS [options of train.py]
#
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each. On one machine the port is
# chosen freely, so that runs do not collide. PYTHON is the interpreter (default: python).
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: bash $0 CONFIG GPUS [options of train.py]" >&2
    exit 2
fi
config=$1
gpus=$2
shift 2

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/torchrun.sh
source "$tools/torchrun.sh"
run_distributed "$gpus" "$tools/train.py" "$config" --launcher pytorch "$@"
