#!/usr/bin/env bash
# Test under Slurm.
#
#   GPUS=8 bash tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of test.py]
#
# GPUS (default 8), GPUS_PER_NODE (default: at most 8), CPUS_PER_TASK (default 5), SRUN_ARGS (further
# options of srun, separated by blanks), PYTHON (default: python).
set -euo pipefail

if [ $# -lt 4 ]; then
    echo "usage: bash $0 PARTITION JOB_NAME CONFIG CHECKPOINT [options of test.py]" >&2
    exit 2
fi
partition=$1
job_name=$2
config=$3
checkpoint=$4
shift 4

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/srun.sh
source "$tools/srun.sh"
run_under_slurm "$partition" "$job_name" \
    "$tools/test.py" "$config" "$checkpoint" --launcher slurm "$@"
