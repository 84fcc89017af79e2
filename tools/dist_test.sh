#!/usr/bin/env bash
# Test on several GPUs, or with several processes on CPU where there is no GPU.
#
#   bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of test.py]
#
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each. On one machine the port is
# chosen freely, so that runs do not collide. PYTHON is the interpreter (default: python).
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "usage: bash $0 CONFIG CHECKPOINT GPUS [options of test.py]" >&2
    exit 2
fi
config=$1
checkpoint=$2
gpus=$3
shift 3

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/torchrun.sh
source "$tools/torchrun.sh"
run_distributed "$gpus" "$tools/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
