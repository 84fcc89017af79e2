#!/usr/bin/env bash
# Train under Slurm.
#
#   GPUS=8 bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [WORK_DIR] [options of train.py]
#
# GPUS (default 8), GPUS_PER_NODE (default: at most 8), CPUS_PER_TASK (default 5), SRUN_ARGS (further
# options of srun, separated by blanks), PYTHON (default: python).
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "usage: bash $0 PARTITION JOB_NAME CONFIG [WORK_DIR] [options of train.py]" >&2
    exit 2
fi
partition=$1
job_name=$2
config=$3
shift 3
work_dir=()
if [ $# -gt 0 ] && [[ $1 != -* ]]; then
    work_dir=(--work-dir "$1")
    shift
fi

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/srun.sh
source "$tools/srun.sh"
run_under_slurm "$partition" "$job_name" \
    "$tools/train.py" "$config" ${work_dir[@]+"${work_dir[@]}"} --launcher slurm "$@"
